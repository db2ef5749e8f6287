"""ResNet with torchvision's layout, so that its weights fit (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models._convolution import conv
from facefeat_jax.models.arrays import Features, Maps, Mask, NewMaps
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.cpu.pooling import max_pool
from facefeat_jax.models.head import check_widths, torch_linear
from facefeat_jax.models.trunk import Blocks, Stages, Trunk, TrunkOptions


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut; the block of ResNet18 and ResNet34.

    The shortcut is a strided 1x1 convolution with batch normalisation where the shape changes (`downsample_conv`,
    `downsample_bn`), else the identity (both `None`).
    """

    EXPANSION: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.conv1 = conv(in_features, width, 3, stride, **dtypes, rngs=rngs)
        self.bn1 = BatchNorm(width, **dtypes)
        self.conv2 = conv(width, width, 3, **dtypes, rngs=rngs)
        self.bn2 = BatchNorm(width, **dtypes)
        # Declared, not set: an attribute that was None first is static to Flax and takes no module afterwards.
        self.downsample_conv: nnx.Conv | None
        self.downsample_bn: BatchNorm | None
        self.downsample_conv, self.downsample_bn = _downsample(in_features, width, stride, dtypes, rngs)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, width]`."""
        x = nnx.relu(self.bn1(self.conv1(inputs), mask=mask))
        x = self.bn2(self.conv2(x), mask=mask)
        return nnx.relu(x + _shortcut(self, inputs, mask))


class Bottleneck(nnx.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut; the block of ResNet50, ResNet101 and ResNet152.

    The 3x3 convolution has the stride, as in torchvision; the paper gave it to the first 1x1. This is often called
    ResNet v1.5. The shortcut is that of `BasicBlock`.
    """

    EXPANSION: ClassVar[int] = 4

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        features = width * self.EXPANSION
        self.conv1 = conv(in_features, width, 1, **dtypes, rngs=rngs)
        self.bn1 = BatchNorm(width, **dtypes)
        self.conv2 = conv(width, width, 3, stride, **dtypes, rngs=rngs)
        self.bn2 = BatchNorm(width, **dtypes)
        self.conv3 = conv(width, features, 1, **dtypes, rngs=rngs)
        self.bn3 = BatchNorm(features, **dtypes)
        self.downsample_conv: nnx.Conv | None
        self.downsample_bn: BatchNorm | None
        self.downsample_conv, self.downsample_bn = _downsample(in_features, features, stride, dtypes, rngs)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, 4 * width]`."""
        x = nnx.relu(self.bn1(self.conv1(inputs), mask=mask))
        x = nnx.relu(self.bn2(self.conv2(x), mask=mask))
        x = self.bn3(self.conv3(x), mask=mask)
        return nnx.relu(x + _shortcut(self, inputs, mask))


def _downsample(
    in_features: int, features: int, stride: int, dtypes: dict[str, Any], rngs: nnx.Rngs
) -> tuple[nnx.Conv, BatchNorm] | tuple[None, None]:
    if stride == 1 and in_features == features:
        return None, None
    return conv(in_features, features, 1, stride, **dtypes, rngs=rngs), BatchNorm(features, **dtypes)


def _shortcut(block: BasicBlock | Bottleneck, inputs: Maps, mask: Mask | None) -> NewMaps:
    if block.downsample_conv is None or block.downsample_bn is None:
        return inputs
    return block.downsample_bn(block.downsample_conv(inputs), mask=mask)


class ResNet(Trunk):
    """A residual network: stem, four stages of blocks, global average pooling, and a classifier if asked for.

    Args:
      stage_sizes: how many blocks `layer1` to `layer4` have; `resnet18` is (2, 2, 2, 2).
      block: `BasicBlock` or `Bottleneck`.
      width: channels of the stem and of the first stage's 3x3 convolutions; each later stage doubles them.
      num_classes: width of the classifier `fc`; `None` leaves it out, and calling the network gives pooled features.
      in_channels: channels of the pictures.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of parameters and running statistics.
      remat: compute the blocks' activations anew in the backward pass, which saves memory and costs time.
      rngs: source of the initial weights.

    Attributes:
      num_features: width of the pooled features.
    """

    STAGES: ClassVar[Stages] = {
        "stem": ("conv1", "bn1"),
        "layer1": ("layer1",),
        "layer2": ("layer2",),
        "layer3": ("layer3",),
        "layer4": ("layer4",),
    }
    LAST: ClassVar[tuple[str, ...]] = ("layer4",)

    def __init__(
        self,
        stage_sizes: Sequence[int],
        *,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        width: int = 64,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}

        def stage(in_features: int, channels: int, blocks: int, stride: int) -> Blocks:
            features = channels * block.EXPANSION
            return Blocks(
                block(
                    in_features if index == 0 else features, channels, stride if index == 0 else 1, **dtypes, rngs=rngs
                )
                for index in range(blocks)
            )

        expansion = block.EXPANSION
        check_widths(in_channels=in_channels, num_classes=num_classes)
        self.in_channels = in_channels
        self.num_features = 8 * width * expansion
        self.dtype = dtype or param_dtype
        self.remat = remat
        self.conv1 = conv(in_channels, width, 7, 2, **dtypes, rngs=rngs)
        self.bn1 = BatchNorm(width, **dtypes)
        self.layer1 = stage(width, width, stage_sizes[0], stride=1)
        self.layer2 = stage(width * expansion, 2 * width, stage_sizes[1], stride=2)
        self.layer3 = stage(2 * width * expansion, 4 * width, stage_sizes[2], stride=2)
        self.layer4 = stage(4 * width * expansion, 8 * width, stage_sizes[3], stride=2)
        self.fc = None if num_classes is None else torch_linear(self.num_features, num_classes, **dtypes, rngs=rngs)

    def stage(self, name: str, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Runs one stage.

        The stages divide the images' height and width by 4, 4, 8, 16 and 32, and give, of the usual width, 64, 64, 128,
        256 and 512 channels; with bottlenecks 64, 256, 512, 1024 and 2048.
        """
        if name == "stem":
            x = nnx.relu(self.bn1(self.conv1(inputs), mask=mask))
            return max_pool(x, window=3, stride=2, pad=1)
        x = inputs
        for block in getattr(self, name):
            x = self._run_block(block, x, mask, rngs)
        return x

    def pooled(self, inputs: Maps) -> Features:
        """Maps the last stage's output to pooled features `[batch, num_features]`."""
        return jnp.mean(inputs, axis=(1, 2))


def resnet18(**options: Unpack[TrunkOptions]) -> ResNet:
    """ResNet18: 11.2 million parameters without its classifier. Options are `TrunkOptions`."""
    return ResNet((2, 2, 2, 2), **options)


def resnet34(**options: Unpack[TrunkOptions]) -> ResNet:
    """ResNet34: 21.3 million parameters without its classifier. Options are `TrunkOptions`."""
    return ResNet((3, 4, 6, 3), **options)


def resnet50(**options: Unpack[TrunkOptions]) -> ResNet:
    """ResNet50: 23.5 million parameters without its classifier. Options are `TrunkOptions`."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, **options)


def resnet101(**options: Unpack[TrunkOptions]) -> ResNet:
    """ResNet101: 42.5 million parameters without its classifier. Options are `TrunkOptions`."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, **options)


def resnet152(**options: Unpack[TrunkOptions]) -> ResNet:
    """ResNet152: 58.1 million parameters without its classifier. Options are `TrunkOptions`."""
    return ResNet((3, 8, 36, 3), block=Bottleneck, **options)
