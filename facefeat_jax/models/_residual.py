"""The blocks of residual networks, and the stem of those that have three convolutions there."""

from __future__ import annotations

from typing import ClassVar, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models._checks import WrongCallError
from facefeat_jax.models._convolution import conv, stride_of
from facefeat_jax.models._dropout import StochasticDepth
from facefeat_jax.models.arrays import Maps, Mask, NewMaps
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.normalization import NormLayer, normalized
from facefeat_jax.models.trunk import LayerOptions


class DeepStem(nnx.Module):
    """Three 3x3 convolutions in place of one of 7x7 (https://arxiv.org/abs/1812.01187); the network has the last norm.

    Args:
      in_features: channels of the images.
      widths: channels of the three.
      norm_layer: as in `ResNet`.
    """

    def __init__(
        self, in_features: int, widths: tuple[int, int, int], norm_layer: NormLayer, **options: Unpack[LayerOptions]
    ):
        first, second, third = widths
        self.conv1 = conv(in_features, first, 3, 2, **options)
        self.bn1 = norm_layer(first, **options)
        self.conv2 = conv(first, second, 3, **options)
        self.bn2 = norm_layer(second, **options)
        self.conv3 = conv(second, third, 3, **options)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / 2, width / 2, widths[2]]`."""
        x = nnx.relu(normalized(self.bn1, self.conv1(inputs), mask))
        return self.conv3(nnx.relu(normalized(self.bn2, self.conv2(x), mask)))


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut; the block of ResNet18 and ResNet34.

    The shortcut is a strided 1x1 convolution with batch normalisation where the shape changes (`downsample_conv`,
    `downsample_bn`), else the identity (both `None`). With `pool`, its convolution has no stride, and comes after the
    means of 2x2 places, so many places apart. `drop_path` is stochastic depth of all but the shortcut, or None.
    """

    EXPANSION: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
        norm_layer: NormLayer = BatchNorm,
        pool: int = 0,
        drop_path: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if dilation > 1:
            raise WrongCallError(
                "replace_stride_with_dilation is for trunks of bottlenecks (resnet50 and deeper): as in torchvision, a "
                "BasicBlock has no dilation"
            )
        if (groups, width_per_group) != (1, 64):
            raise WrongCallError("groups and width_per_group are for trunks of bottlenecks, as in torchvision")
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv1 = conv(in_features, width, 3, stride, **options)
        self.bn1 = norm_layer(width, **options)
        self.conv2 = conv(width, width, 3, **options)
        self.bn2 = norm_layer(width, **options)
        # Declared, not set: an attribute that was None first is static to Flax and takes no module afterwards.
        self.downsample_conv: nnx.Conv | None
        self.downsample_bn: nnx.Module | None
        self.downsample_conv, self.downsample_bn = _downsample(in_features, width, stride, pool, norm_layer, options)
        self.pool = pool
        self.drop_path = StochasticDepth(drop_path) if drop_path else None

    @property
    def stride(self) -> int:
        """By how much it makes maps smaller."""
        return stride_of(self.conv1) * stride_of(self.conv2)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, width]`."""
        x = nnx.relu(normalized(self.bn1, self.conv1(inputs), mask))
        x = normalized(self.bn2, self.conv2(x), mask)
        return _joined(self, inputs, x, mask, rngs)


class Bottleneck(nnx.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut; the block of ResNet50 and deeper, and their relatives.

    A ResNeXt (https://arxiv.org/abs/1611.05431) splits the 3x3 convolution into groups; a Wide ResNet
    (https://arxiv.org/abs/1605.07146) widens it.

    The 3x3 convolution has the stride, as in torchvision; the paper gave it to the first 1x1. This is often called
    ResNet v1.5. Shortcut and `drop_path` are those of `BasicBlock`.
    """

    EXPANSION: ClassVar[int] = 4

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
        norm_layer: NormLayer = BatchNorm,
        pool: int = 0,
        drop_path: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        features = width * self.EXPANSION
        inner = width * width_per_group // 64 * groups
        self.conv1 = conv(in_features, inner, 1, **options)
        self.bn1 = norm_layer(inner, **options)
        self.conv2 = conv(inner, inner, 3, stride, groups=groups, dilation=dilation, **options)
        self.bn2 = norm_layer(inner, **options)
        self.conv3 = conv(inner, features, 1, **options)
        self.bn3 = norm_layer(features, **options)
        self.downsample_conv: nnx.Conv | None
        self.downsample_bn: nnx.Module | None
        self.downsample_conv, self.downsample_bn = _downsample(in_features, features, stride, pool, norm_layer, options)
        self.pool = pool
        self.drop_path = StochasticDepth(drop_path) if drop_path else None

    @property
    def stride(self) -> int:
        """By how much it makes maps smaller."""
        return stride_of(self.conv1) * stride_of(self.conv2) * stride_of(self.conv3)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, 4 * width]`."""
        x = nnx.relu(normalized(self.bn1, self.conv1(inputs), mask))
        x = nnx.relu(normalized(self.bn2, self.conv2(x), mask))
        x = normalized(self.bn3, self.conv3(x), mask)
        return _joined(self, inputs, x, mask, rngs)


def _downsample(
    in_features: int, features: int, stride: int, pool: int, norm_layer: NormLayer, options: LayerOptions
) -> tuple[nnx.Conv, nnx.Module] | tuple[None, None]:
    if stride == 1 and in_features == features:
        return None, None
    return conv(in_features, features, 1, 1 if pool else stride, **options), norm_layer(features, **options)


def average_pool(inputs: Maps, stride: int) -> NewMaps:
    """Returns the means of 2x2 places, `[batch, ceil(height / stride), ceil(width / stride), channels]`.

    At the lower and the right edge they are of the places inside; with a stride of 1 zeros lie beyond it, as in timm.
    """
    height, width = inputs.shape[1:3]
    # The edge once more gives the same mean as without what is beyond it.
    padded = jnp.pad(inputs, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge" if stride > 1 else "constant")
    places = [padded[:, y : y + height : stride, x : x + width : stride] for y in (0, 1) for x in (0, 1)]
    return sum(places[1:], places[0]) / 4


def _joined(
    block: BasicBlock | Bottleneck, inputs: Maps, outputs: NewMaps, mask: Mask | None, rngs: nnx.Rngs | None
) -> NewMaps:
    """Adds the shortcut."""
    if block.drop_path is not None:
        outputs = block.drop_path(outputs, rngs=rngs)
    if block.downsample_conv is None or block.downsample_bn is None:
        return nnx.relu(outputs + inputs)
    shortcut = average_pool(inputs, block.pool) if block.pool else inputs
    return nnx.relu(outputs + normalized(block.downsample_bn, block.downsample_conv(shortcut), mask))
