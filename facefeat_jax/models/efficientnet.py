"""EfficientNet with torchvision's layout, so that its weights fit.

Tan and Le 2019, https://arxiv.org/abs/1905.11946; V2: Tan and Le 2021, https://arxiv.org/abs/2104.00298
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, NamedTuple, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import _draws as draws
from facefeat_jax.models._checks import check_options
from facefeat_jax.models._convolution import stride_of
from facefeat_jax.models._dropout import Dropout
from facefeat_jax.models._mbconv import ConvNormActivation, FusedMBConv, MBConv, scaled_width
from facefeat_jax.models._mbconv import Stage as Stage
from facefeat_jax.models._options import options_of
from facefeat_jax.models.arrays import Features, Logits, Maps, Mask, NewMaps
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.normalization import NormLayer
from facefeat_jax.models.sharding import logical_axes
from facefeat_jax.models.trunk import Blocks, LayerOptions, Stages, Trunk, TrunkOptions


class Scale(NamedTuple):
    """What makes the others of B0: the factors of width and depth, the dropout, and torchvision's BatchNorm."""

    width: float
    depth: float
    dropout: float
    epsilon: float = 1e-5
    momentum: float = 0.9


# Table 1 of the paper, stages 2 to 8; those of B0.
STEM = 32
TABLE = (
    Stage(expansion=1, kernel=3, stride=1, features=16, blocks=1),
    Stage(expansion=6, kernel=3, stride=2, features=24, blocks=2),
    Stage(expansion=6, kernel=5, stride=2, features=40, blocks=2),
    Stage(expansion=6, kernel=3, stride=2, features=80, blocks=3),
    Stage(expansion=6, kernel=5, stride=1, features=112, blocks=3),
    Stage(expansion=6, kernel=5, stride=2, features=192, blocks=4),
    Stage(expansion=6, kernel=3, stride=1, features=320, blocks=1),
)
# torchvision's: the last three have the BatchNorm of the implementation that their weights were ported from.
SCALES = (
    Scale(width=1.0, depth=1.0, dropout=0.2),
    Scale(width=1.0, depth=1.1, dropout=0.2),
    Scale(width=1.1, depth=1.2, dropout=0.3),
    Scale(width=1.2, depth=1.4, dropout=0.3),
    Scale(width=1.4, depth=1.8, dropout=0.4),
    Scale(width=1.6, depth=2.2, dropout=0.4, epsilon=1e-3, momentum=0.99),
    Scale(width=1.8, depth=2.6, dropout=0.5, epsilon=1e-3, momentum=0.99),
    Scale(width=2.0, depth=3.1, dropout=0.5, epsilon=1e-3, momentum=0.99),
)


# Table 4 of V2's paper; torchvision's medium and large.
V2_SMALL = (
    Stage(1, 3, 1, 24, 2, fused=True),
    Stage(4, 3, 2, 48, 4, fused=True),
    Stage(4, 3, 2, 64, 4, fused=True),
    Stage(4, 3, 2, 128, 6),
    Stage(6, 3, 1, 160, 9),
    Stage(6, 3, 2, 256, 15),
)
V2_MEDIUM = (
    Stage(1, 3, 1, 24, 3, fused=True),
    Stage(4, 3, 2, 48, 5, fused=True),
    Stage(4, 3, 2, 80, 5, fused=True),
    Stage(4, 3, 2, 160, 7),
    Stage(6, 3, 1, 176, 14),
    Stage(6, 3, 2, 304, 18),
    Stage(6, 3, 1, 512, 5),
)
V2_LARGE = (
    Stage(1, 3, 1, 32, 4, fused=True),
    Stage(4, 3, 2, 64, 7, fused=True),
    Stage(4, 3, 2, 96, 7, fused=True),
    Stage(4, 3, 2, 192, 10),
    Stage(6, 3, 1, 224, 19),
    Stage(6, 3, 2, 384, 25),
    Stage(6, 3, 1, 640, 7),
)


class EfficientNet(Trunk):
    """An EfficientNet: stem, seven stages of `MBConv`, a widening convolution, average pooling, and maybe a classifier.

    Args:
      scale: one of `SCALES`.
      table: the seven stages, at the scale of B0.
      stem: channels of the first convolution, at the scale of B0.
      head: channels of the last; the default is four times those of the last stage.
      stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
      drop_path: the same by the name that it has in the other trunks.
      dropout: rate before the classifier; the default is the scale's.
      norm_layer: makes the normalisations: the scale's `BatchNorm`, `GroupNorm`, or
        `functools.partial(GroupNorm, num_groups=8)`.

    The other arguments are `TrunkOptions`.

    Attributes:
      num_features: width of the pooled features.
    """

    STAGES: ClassVar[Stages] = {
        "stem": ("stem",),
        **{f"stage{number}": (f"stage{number}",) for number in range(1, 8)},
        "head": ("head",),
    }
    LAST: ClassVar[tuple[str, ...]] = ("stage7", "head")
    NECK: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(
        self,
        scale: Scale,
        *,
        table: tuple[Stage, ...] = TABLE,
        stem: int = STEM,
        head: int | None = None,
        stochastic_depth: float = 0.2,
        drop_path: float | None = None,
        dropout: float | None = None,
        norm_layer: NormLayer | None = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_options(in_channels=in_channels, num_classes=num_classes, **options)
        stochastic_depth = stochastic_depth if drop_path is None else drop_path
        norm_layer = norm_layer or partial(BatchNorm, epsilon=scale.epsilon, momentum=scale.momentum)
        self.in_channels = in_channels
        self.dtype = dtype or param_dtype
        self.remat = remat

        features = scaled_width(stem, scale.width)
        self.stem = ConvNormActivation(in_channels, features, 3, 2, norm_layer, **options)
        depths = [math.ceil(stage.blocks * scale.depth) for stage in table]
        before = 0
        for number, (stage, depth) in enumerate(zip(table, depths, strict=True), start=1):
            blocks = []
            for index in range(depth):
                wanted = scaled_width(stage.features, scale.width)
                stride = stage.stride if index == 0 else 1
                drop_rate = stochastic_depth * (before + index) / sum(depths)
                block = FusedMBConv if stage.fused else MBConv
                blocks.append(block(features, wanted, stage, stride, drop_rate, norm_layer, **options))
                features = wanted
            before += depth
            setattr(self, f"stage{number}", Blocks(blocks))
        self.num_features = 4 * features if head is None else head
        self.head = ConvNormActivation(features, self.num_features, 1, 1, norm_layer, **options)
        self.dropout = Dropout(scale.dropout if dropout is None else dropout)
        self.fc = None if num_classes is None else self.new_classifier(num_classes, **options)

    @property
    def strides(self) -> dict[str, int]:
        stride, found = 1, {}
        for name in self.STAGES:
            inside = getattr(self, name)
            blocks = [block.stride for block in inside] if name.startswith("stage") else [stride_of(inside.conv)]
            stride *= math.prod(blocks)
            found[name] = stride
        return found

    def stage(self, name: str, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Runs one stage; `feature_info` has the strides and channels of all.

        The stages divide the images' height and width by 2, 2, 4, 8, 16, 16, 32, 32 and 32; B0's give 32, 16, 24, 40,
        80, 112, 192, 320 and 1280 channels.
        """
        if name in ("stem", "head"):
            return getattr(self, name)(inputs, mask=mask)
        x = inputs
        for block in getattr(self, name):
            x = self._run_block(block, x, mask, rngs)
        return x

    def pooled(self, inputs: Maps) -> Features:
        """Maps the last stage's output to pooled features `[batch, num_features]`."""
        return jnp.mean(inputs, axis=(1, 2))

    def classify(self, features: Features, *, rngs: nnx.Rngs | None = None) -> Logits:
        """Maps pooled features to logits `[batch, num_classes]`, in training mode with dropout."""
        return super().classify(self.dropout(features, rngs=rngs))

    def new_classifier(self, num_classes: int, **options: Unpack[LayerOptions]) -> nnx.Linear:
        """Makes a classifier that starts as torchvision's: uniform within 1 / sqrt(num_classes), no bias."""
        uniform = draws.uniform(1 / math.sqrt(num_classes))
        axes = logical_axes("features", "outputs")
        return nnx.Linear(self.num_features, num_classes, kernel_init=uniform, kernel_metadata=axes, **options)


class EfficientNetOptions(TrunkOptions, total=False):
    """`TrunkOptions`, and those of `EfficientNet`."""

    drop_path: float
    dropout: float
    norm_layer: NormLayer


@options_of(EfficientNet)
def efficientnet_b0(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B0: 4.0 million parameters without its classifier."""
    return EfficientNet(SCALES[0], **options)


@options_of(EfficientNet)
def efficientnet_b1(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B1: 6.5 million parameters without its classifier."""
    return EfficientNet(SCALES[1], **options)


@options_of(EfficientNet)
def efficientnet_b2(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B2: 7.7 million parameters without its classifier."""
    return EfficientNet(SCALES[2], **options)


@options_of(EfficientNet)
def efficientnet_b3(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B3: 10.7 million parameters without its classifier."""
    return EfficientNet(SCALES[3], **options)


@options_of(EfficientNet)
def efficientnet_b4(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B4: 17.5 million parameters without its classifier."""
    return EfficientNet(SCALES[4], **options)


@options_of(EfficientNet)
def efficientnet_b5(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B5: 28.3 million parameters without its classifier."""
    return EfficientNet(SCALES[5], **options)


@options_of(EfficientNet)
def efficientnet_b6(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B6: 40.7 million parameters without its classifier."""
    return EfficientNet(SCALES[6], **options)


@options_of(EfficientNet)
def efficientnet_b7(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet B7: 63.8 million parameters without its classifier."""
    return EfficientNet(SCALES[7], **options)


class EfficientNetV2Small(EfficientNet):
    """An EfficientNet V2 of six stages; arguments are those of `EfficientNet`."""

    STAGES: ClassVar[Stages] = {name: names for name, names in EfficientNet.STAGES.items() if name != "stage7"}
    LAST: ClassVar[tuple[str, ...]] = ("stage6", "head")


def _v2_scale(dropout: float) -> Scale:
    return Scale(width=1.0, depth=1.0, dropout=dropout, epsilon=1e-3)


@options_of(EfficientNet)
def efficientnet_v2_s(**options: Unpack[EfficientNetOptions]) -> EfficientNetV2Small:
    """EfficientNet V2 S: 20.2 million parameters without its classifier."""
    return EfficientNetV2Small(_v2_scale(0.2), table=V2_SMALL, stem=24, head=1280, **options)


@options_of(EfficientNet)
def efficientnet_v2_m(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet V2 M: 52.9 million parameters without its classifier."""
    return EfficientNet(_v2_scale(0.3), table=V2_MEDIUM, stem=24, head=1280, **options)


@options_of(EfficientNet)
def efficientnet_v2_l(**options: Unpack[EfficientNetOptions]) -> EfficientNet:
    """EfficientNet V2 L: 117.2 million parameters without its classifier."""
    return EfficientNet(_v2_scale(0.4), table=V2_LARGE, stem=32, head=1280, **options)
