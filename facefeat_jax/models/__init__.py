"""Flax NNX modules: usable alone, with nothing but jax and flax loaded."""

from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.head import Head
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalize
from facefeat_jax.models.registry import list_models
from facefeat_jax.models.resnet import BasicBlock, ResNet, resnet18

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BasicBlock",
    "BatchNorm",
    "Head",
    "MultiTaskModel",
    "ResNet",
    "list_models",
    "normalize",
    "resnet18",
]
