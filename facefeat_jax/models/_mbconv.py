"""The blocks of EfficientNets."""

from __future__ import annotations

from typing import NamedTuple, Unpack

import jax.numpy as jnp
from flax import nnx

from facefeat_jax.models._convolution import conv, stride_of
from facefeat_jax.models._dropout import StochasticDepth
from facefeat_jax.models.arrays import Maps, Mask, NewMaps
from facefeat_jax.models.normalization import NormLayer, normalized
from facefeat_jax.models.trunk import LayerOptions


class Stage(NamedTuple):
    """A row of the papers' tables: blocks that share a width; the first has the stride. `fused`: see `FusedMBConv`."""

    expansion: int
    kernel: int
    stride: int
    features: int
    blocks: int
    fused: bool = False


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
        norm_layer: NormLayer,
        *,
        groups: int = 1,
        activation: bool = True,
        **options: Unpack[LayerOptions],
    ):
        self.conv = conv(in_features, out_features, kernel, stride, groups=groups, **options)
        self.bn = norm_layer(out_features, **options)
        self.activation = activation

    def __call__(self, inputs: Maps, *, mask: Mask | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, out_features]`."""
        x = normalized(self.bn, self.conv(inputs), mask)
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
        norm_layer: NormLayer,
        **options: Unpack[LayerOptions],
    ):
        wide = scaled_width(in_features, stage.expansion)
        self.expand = (
            ConvNormActivation(in_features, wide, 1, 1, norm_layer, **options) if wide != in_features else None
        )
        self.depthwise = ConvNormActivation(wide, wide, stage.kernel, stride, norm_layer, groups=wide, **options)
        self.squeeze = SqueezeExcitation(wide, max(1, in_features // 4), **options)
        self.project = ConvNormActivation(wide, features, 1, 1, norm_layer, activation=False, **options)
        self.stochastic_depth = StochasticDepth(drop_rate)
        self.is_residual = stride == 1 and in_features == features

    @property
    def stride(self) -> int:
        """By how much it makes maps smaller."""
        return stride_of(self.depthwise.conv)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, features]`."""
        x = inputs if self.expand is None else self.expand(inputs, mask=mask)
        x = self.project(self.squeeze(self.depthwise(x, mask=mask)), mask=mask)
        return inputs + self.stochastic_depth(x, rngs=rngs) if self.is_residual else x


class FusedMBConv(nnx.Module):
    """The block of a V2's first stages: one convolution of all channels widens, in place of two, and none weighs them.

    Attributes:
      narrow: the narrowing convolution; None where the expansion is 1, whose one convolution does all.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        stage: Stage,
        stride: int,
        drop_rate: float,
        norm_layer: NormLayer,
        **options: Unpack[LayerOptions],
    ):
        wide = scaled_width(in_features, stage.expansion)
        first = features if wide == in_features else wide
        self.fused = ConvNormActivation(in_features, first, stage.kernel, stride, norm_layer, **options)
        self.narrow: ConvNormActivation | None
        self.narrow = (
            ConvNormActivation(wide, features, 1, 1, norm_layer, activation=False, **options)
            if wide != in_features
            else None
        )
        self.stochastic_depth = StochasticDepth(drop_rate)
        self.is_residual = stride == 1 and in_features == features

    @property
    def stride(self) -> int:
        """By how much it makes maps smaller."""
        return stride_of(self.fused.conv)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, features]`."""
        x = self.fused(inputs, mask=mask)
        x = x if self.narrow is None else self.narrow(x, mask=mask)
        return inputs + self.stochastic_depth(x, rngs=rngs) if self.is_residual else x
