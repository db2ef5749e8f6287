"""EfficientNet with torchvision's layout, so that its weights fit (Tan and Le 2019, https://arxiv.org/abs/1905.11946)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models._convolution import conv
from facefeat_jax.models._dropout import Dropout, StochasticDepth
from facefeat_jax.models.arrays import Features, Logits, Maps, Mask, NewMaps
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.head import check_widths
from facefeat_jax.models.sharding import logical_axes
from facefeat_jax.models.trunk import Blocks, LayerOptions, Stages, Trunk, TrunkOptions


class Stage(NamedTuple):
    """A row of the paper's table 1: blocks that share a width; the first has the stride."""

    expansion: int
    kernel: int
    stride: int
    features: int
    blocks: int


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


def scaled_width(features: int, factor: float) -> int:
    """Returns the scaled number of channels: the nearest multiple of 8 that is not more than a tenth too small."""
    wanted = features * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class ConvNormActivation(nnx.Module):
    """A convolution, its batch normalisation, and SiLU unless it is left out."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int,
        stride: int,
        scale: Scale,
        *,
        groups: int = 1,
        activation: bool = True,
        **options: Unpack[LayerOptions],
    ):
        dtypes: dict[str, Any] = {"dtype": options["dtype"], "param_dtype": options["param_dtype"]}
        self.conv = conv(in_features, out_features, kernel, stride, groups=groups, **options)
        self.bn = BatchNorm(out_features, epsilon=scale.epsilon, momentum=scale.momentum, **dtypes)
        self.activation = activation

    def __call__(self, inputs: Maps, *, mask: Mask | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, out_features]`."""
        x = self.bn(self.conv(inputs), mask=mask)
        return nnx.silu(x) if self.activation else x


class SqueezeExcitation(nnx.Module):
    """Weighs the channels of a map by what the whole of it holds (https://arxiv.org/abs/1709.01507)."""

    def __init__(self, features: int, squeezed: int, **options: Unpack[LayerOptions]):
        self.fc1 = conv(features, squeezed, 1, use_bias=True, **options)
        self.fc2 = conv(squeezed, features, 1, use_bias=True, **options)

    def __call__(self, inputs: Maps) -> Maps:
        """Returns `[batch, height, width, features]`, as it came in but weighed."""
        weights = nnx.silu(self.fc1(jnp.mean(inputs, axis=(1, 2), keepdims=True)))
        return inputs * nnx.sigmoid(self.fc2(weights))


class MBConv(nnx.Module):
    """The mobile inverted bottleneck: widen, convolve each channel by itself, weigh the channels, narrow.

    It adds its inputs where they have the shape of its outputs; then stochastic depth may leave out all the rest.

    Attributes:
      expand: the widening convolution; None where the expansion is 1.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        stage: Stage,
        stride: int,
        drop_rate: float,
        scale: Scale,
        **options: Unpack[LayerOptions],
    ):
        wide = scaled_width(in_features, stage.expansion)
        self.expand = ConvNormActivation(in_features, wide, 1, 1, scale, **options) if wide != in_features else None
        self.depthwise = ConvNormActivation(wide, wide, stage.kernel, stride, scale, groups=wide, **options)
        self.squeeze = SqueezeExcitation(wide, max(1, in_features // 4), **options)
        self.project = ConvNormActivation(wide, features, 1, 1, scale, activation=False, **options)
        self.stochastic_depth = StochasticDepth(drop_rate)
        self.is_residual = stride == 1 and in_features == features

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, features]`."""
        x = inputs if self.expand is None else self.expand(inputs, mask=mask)
        x = self.project(self.squeeze(self.depthwise(x, mask=mask)), mask=mask)
        return inputs + self.stochastic_depth(x, rngs=rngs) if self.is_residual else x


class EfficientNet(Trunk):
    """An EfficientNet: stem, seven stages of `MBConv`, a widening convolution, average pooling, and maybe a classifier.

    Args:
      scale: one of `SCALES`.
      table: the seven stages, at the scale of B0.
      stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
      dropout: rate before the classifier; the default is the scale's.

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

    def __init__(
        self,
        scale: Scale,
        *,
        table: tuple[Stage, ...] = TABLE,
        stochastic_depth: float = 0.2,
        dropout: float | None = None,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_widths(in_channels=in_channels, num_classes=num_classes)
        self.in_channels = in_channels
        self.dtype = dtype or param_dtype
        self.remat = remat

        features = scaled_width(STEM, scale.width)
        self.stem = ConvNormActivation(in_channels, features, 3, 2, scale, **options)
        depths = [math.ceil(stage.blocks * scale.depth) for stage in table]
        before = 0
        for number, (stage, depth) in enumerate(zip(table, depths, strict=True), start=1):
            blocks = []
            for index in range(depth):
                wanted = scaled_width(stage.features, scale.width)
                stride = stage.stride if index == 0 else 1
                drop_rate = stochastic_depth * (before + index) / sum(depths)
                blocks.append(MBConv(features, wanted, stage, stride, drop_rate, scale, **options))
                features = wanted
            before += depth
            setattr(self, f"stage{number}", Blocks(blocks))
        self.num_features = 4 * features
        self.head = ConvNormActivation(features, self.num_features, 1, 1, scale, **options)
        self.dropout = Dropout(scale.dropout if dropout is None else dropout)
        self.fc = None if num_classes is None else _classifier(self.num_features, num_classes, **options)

    def stage(self, name: str, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Runs one stage.

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


def _classifier(in_features: int, num_classes: int, **options: Unpack[LayerOptions]) -> nnx.Linear:
    """A linear layer that starts as torchvision's: uniform within 1 / sqrt(num_classes), no bias."""
    bound = 1 / math.sqrt(num_classes)

    def uniform(key, shape, dtype, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    axes = logical_axes("features", "outputs")
    return nnx.Linear(in_features, num_classes, kernel_init=uniform, kernel_metadata=axes, **options)


def efficientnet_b0(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B0: 4.0 million parameters without its classifier."""
    return EfficientNet(SCALES[0], **options)


def efficientnet_b1(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B1: 6.5 million parameters without its classifier."""
    return EfficientNet(SCALES[1], **options)


def efficientnet_b2(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B2: 7.7 million parameters without its classifier."""
    return EfficientNet(SCALES[2], **options)


def efficientnet_b3(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B3: 10.7 million parameters without its classifier."""
    return EfficientNet(SCALES[3], **options)


def efficientnet_b4(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B4: 17.5 million parameters without its classifier."""
    return EfficientNet(SCALES[4], **options)


def efficientnet_b5(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B5: 28.3 million parameters without its classifier."""
    return EfficientNet(SCALES[5], **options)


def efficientnet_b6(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B6: 40.7 million parameters without its classifier."""
    return EfficientNet(SCALES[6], **options)


def efficientnet_b7(**options: Unpack[TrunkOptions]) -> EfficientNet:
    """EfficientNet B7: 63.8 million parameters without its classifier."""
    return EfficientNet(SCALES[7], **options)
