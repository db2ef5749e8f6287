"""ResNet with torchvision's layout, so that its weights fit (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.head import torch_linear
from facefeat_jax.models.small_maps import conv_general_dilated
from facefeat_jax.models.trunk import Trunk

# torchvision's start: normal, variance 2 / fan_out.
_kernel_init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(
    in_features: int,
    out_features: int,
    kernel: int,
    stride: int,
    *,
    dtype: DTypeLike | None,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    # Padding is torch's: the same on both sides. "SAME" pads strided convolutions on one side only.
    pad = kernel // 2
    return nnx.Conv(
        in_features,
        out_features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=_kernel_init,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut; the block of ResNet18 and ResNet34.

    The shortcut is a strided 1x1 convolution with batch normalisation where the shape changes (`downsample_conv`,
    `downsample_bn`), else the identity (both `None`).
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        stride: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv1 = _conv(in_features, features, 3, stride, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.bn1 = BatchNorm(features, dtype=dtype, param_dtype=param_dtype)
        self.conv2 = _conv(features, features, 3, 1, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.bn2 = BatchNorm(features, dtype=dtype, param_dtype=param_dtype)
        # Declared, not set: an attribute that was None first is static to Flax and takes no module afterwards.
        self.downsample_conv: nnx.Conv | None
        self.downsample_bn: BatchNorm | None
        if stride != 1 or in_features != features:
            self.downsample_conv = _conv(
                in_features, features, 1, stride, dtype=dtype, param_dtype=param_dtype, rngs=rngs
            )
            self.downsample_bn = BatchNorm(features, dtype=dtype, param_dtype=param_dtype)
        else:
            self.downsample_conv = self.downsample_bn = None

    def __call__(self, inputs: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, height, width, in_features]` to `[batch, height / stride, width / stride, features]`."""
        x = nnx.relu(self.bn1(self.conv1(inputs), mask=mask))
        x = self.bn2(self.conv2(x), mask=mask)
        shortcut = inputs
        if self.downsample_conv is not None and self.downsample_bn is not None:
            shortcut = self.downsample_bn(self.downsample_conv(inputs), mask=mask)
        return nnx.relu(x + shortcut)


class ResNet(Trunk):
    """A residual network: stem, four stages of blocks, global average pooling, and a classifier where one is asked for.

    Args:
      stage_sizes: how many blocks `layer1` to `layer4` have; `resnet18` is (2, 2, 2, 2).
      num_classes: width of the classifier `fc`; `None` leaves it out, and calling the network gives pooled features.
      in_channels: channels of the pictures.
      dtype: of the computation; the default is that of inputs and parameters together.
      param_dtype: of parameters and running statistics.
      rngs: source of the initial weights.

    Attributes:
      num_features: width of the pooled features.
    """

    STAGES: ClassVar[dict[str, tuple[str, ...]]] = {
        "stem": ("conv1", "bn1"),
        "layer1": ("layer1",),
        "layer2": ("layer2",),
        "layer3": ("layer3",),
        "layer4": ("layer4",),
    }

    def __init__(
        self,
        stage_sizes: Sequence[int],
        *,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        def stage(features: int, in_features: int, blocks: int, stride: int) -> nnx.List:
            return nnx.List(
                BasicBlock(
                    in_features if index == 0 else features,
                    features,
                    stride if index == 0 else 1,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for index in range(blocks)
            )

        self.in_channels = in_channels
        self.num_features = 512
        self.dtype = dtype or param_dtype
        self.conv1 = _conv(in_channels, 64, 7, 2, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.bn1 = BatchNorm(64, dtype=dtype, param_dtype=param_dtype)
        self.layer1 = stage(64, 64, stage_sizes[0], stride=1)
        self.layer2 = stage(128, 64, stage_sizes[1], stride=2)
        self.layer3 = stage(256, 128, stage_sizes[2], stride=2)
        self.layer4 = stage(512, 256, stage_sizes[3], stride=2)
        self.fc = (
            None
            if num_classes is None
            else torch_linear(self.num_features, num_classes, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        )

    def stage(self, name: str, inputs: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Runs one stage.

        The stages divide the images' height and width by 4, 4, 8, 16 and 32, and give 64, 64, 128, 256 and 512
        channels.
        """
        if name == "stem":
            x = nnx.relu(self.bn1(self.conv1(inputs), mask=mask))
            return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        x = inputs
        for block in getattr(self, name):
            x = block(x, mask=mask)
        return x

    def pool(self, inputs: jax.Array) -> jax.Array:
        """Maps the last stage's output to pooled features `[batch, num_features]`, or logits with a classifier."""
        features = jnp.mean(inputs, axis=(1, 2))
        return features if self.fc is None else self.fc(features)


def resnet18(
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> ResNet:
    """ResNet18: 11.2 million parameters without its classifier. Arguments are those of `ResNet`."""
    return ResNet(
        (2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels, dtype=dtype, param_dtype=param_dtype, rngs=rngs
    )
