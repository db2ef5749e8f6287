"""Flax NNX modules: usable alone, with nothing but jax and flax loaded."""

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.efficientnet import (
    EfficientNet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
)
from facefeat_jax.models.freezing import trained_parameters
from facefeat_jax.models.head import Head
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalize
from facefeat_jax.models.registry import Architecture, add_architecture, get_architecture, list_models
from facefeat_jax.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from facefeat_jax.models.sharding import axis_rules
from facefeat_jax.models.trunk import Trunk, TrunkOptions
from facefeat_jax.models.vit import VisionTransformer, vit_b_16, vit_b_32, vit_l_16, vit_l_32

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Architecture",
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "EfficientNet",
    "Head",
    "MultiTaskModel",
    "ResNet",
    "Trunk",
    "TrunkOptions",
    "VisionTransformer",
    "abstract",
    "add_architecture",
    "axis_rules",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "get_architecture",
    "list_models",
    "normalize",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "trained_parameters",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "vit_l_32",
]
