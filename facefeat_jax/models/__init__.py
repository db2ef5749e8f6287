"""Flax NNX modules: usable alone, with nothing but jax and flax loaded."""

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.freezing import trained_parameters
from facefeat_jax.models.head import Head
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalize
from facefeat_jax.models.registry import list_models
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

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "Head",
    "MultiTaskModel",
    "ResNet",
    "abstract",
    "list_models",
    "normalize",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "trained_parameters",
]
