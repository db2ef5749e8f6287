"""Flax NNX modules: usable alone, with nothing but jax and flax loaded."""

from facefeat_jax.models._checks import WrongCallError as WrongCallError
from facefeat_jax.models._levels import StageInfo as StageInfo
from facefeat_jax.models.abstract import abstract as abstract
from facefeat_jax.models.batch_norm import BatchNorm as BatchNorm
from facefeat_jax.models.convnext import ConvNeXt as ConvNeXt
from facefeat_jax.models.convnext import convnext_base as convnext_base
from facefeat_jax.models.convnext import convnext_large as convnext_large
from facefeat_jax.models.convnext import convnext_small as convnext_small
from facefeat_jax.models.convnext import convnext_tiny as convnext_tiny
from facefeat_jax.models.efficientnet import EfficientNet as EfficientNet
from facefeat_jax.models.efficientnet import efficientnet_b0 as efficientnet_b0
from facefeat_jax.models.efficientnet import efficientnet_b1 as efficientnet_b1
from facefeat_jax.models.efficientnet import efficientnet_b2 as efficientnet_b2
from facefeat_jax.models.efficientnet import efficientnet_b3 as efficientnet_b3
from facefeat_jax.models.efficientnet import efficientnet_b4 as efficientnet_b4
from facefeat_jax.models.efficientnet import efficientnet_b5 as efficientnet_b5
from facefeat_jax.models.efficientnet import efficientnet_b6 as efficientnet_b6
from facefeat_jax.models.efficientnet import efficientnet_b7 as efficientnet_b7
from facefeat_jax.models.efficientnet import efficientnet_v2_l as efficientnet_v2_l
from facefeat_jax.models.efficientnet import efficientnet_v2_m as efficientnet_v2_m
from facefeat_jax.models.efficientnet import efficientnet_v2_s as efficientnet_v2_s
from facefeat_jax.models.freezing import trained_parameters as trained_parameters
from facefeat_jax.models.head import Head as Head
from facefeat_jax.models.multi_task import MultiTaskModel as MultiTaskModel
from facefeat_jax.models.normalization import GroupNorm as GroupNorm
from facefeat_jax.models.preprocessing import IMAGENET_MEAN as IMAGENET_MEAN
from facefeat_jax.models.preprocessing import IMAGENET_STD as IMAGENET_STD
from facefeat_jax.models.preprocessing import normalize as normalize
from facefeat_jax.models.registry import Architecture as Architecture
from facefeat_jax.models.registry import add_architecture as add_architecture
from facefeat_jax.models.registry import get_architecture as get_architecture
from facefeat_jax.models.registry import list_models as list_models
from facefeat_jax.models.resnet import BasicBlock as BasicBlock
from facefeat_jax.models.resnet import Bottleneck as Bottleneck
from facefeat_jax.models.resnet import ResNet as ResNet
from facefeat_jax.models.resnet import resnet18 as resnet18
from facefeat_jax.models.resnet import resnet34 as resnet34
from facefeat_jax.models.resnet import resnet50 as resnet50
from facefeat_jax.models.resnet import resnet101 as resnet101
from facefeat_jax.models.resnet import resnet152 as resnet152
from facefeat_jax.models.resnet import resnext50_32x4d as resnext50_32x4d
from facefeat_jax.models.resnet import resnext101_32x8d as resnext101_32x8d
from facefeat_jax.models.resnet import resnext101_64x4d as resnext101_64x4d
from facefeat_jax.models.resnet import wide_resnet50_2 as wide_resnet50_2
from facefeat_jax.models.resnet import wide_resnet101_2 as wide_resnet101_2
from facefeat_jax.models.sharding import axis_rules as axis_rules
from facefeat_jax.models.trunk import Trunk as Trunk
from facefeat_jax.models.trunk import TrunkOptions as TrunkOptions
from facefeat_jax.models.vit import VisionTransformer as VisionTransformer
from facefeat_jax.models.vit import vit_b_16 as vit_b_16
from facefeat_jax.models.vit import vit_b_32 as vit_b_32
from facefeat_jax.models.vit import vit_l_16 as vit_l_16
from facefeat_jax.models.vit import vit_l_32 as vit_l_32
from facefeat_jax.system import public_names

public_names.attach(__name__)
