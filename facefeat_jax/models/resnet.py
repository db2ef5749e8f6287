"""ResNet with torchvision's layout, so that its weights fit (He et al. 2015, https://arxiv.org/abs/1512.03385).

ResNeXt and Wide ResNet are the same network with other bottlenecks; those whose names end in d, s and t, as in timm,
with other stems and shortcuts (He et al. 2018, https://arxiv.org/abs/1812.01187).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack, get_args

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models._checks import WrongCallError, check_options, check_widths
from facefeat_jax.models._convolution import conv, stride_of
from facefeat_jax.models._options import options_of
from facefeat_jax.models._residual import BasicBlock as BasicBlock
from facefeat_jax.models._residual import Bottleneck as Bottleneck
from facefeat_jax.models._residual import DeepStem as DeepStem
from facefeat_jax.models.arrays import Features, Maps, Mask, NewMaps
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.cpu.pooling import max_pool
from facefeat_jax.models.normalization import NormLayer, normalized
from facefeat_jax.models.trunk import Blocks, LayerOptions, Stages, Trunk, TrunkOptions

Stem = Literal["imagenet", "cifar", "deep", "deep_tiered"]


class ResNet(Trunk):
    """A residual network: stem, four stages of blocks, global average pooling, and a classifier if asked for.

    Args:
      stage_sizes: how many blocks `layer1` to `layer4` have; `resnet18` is (2, 2, 2, 2).
      block: `BasicBlock` or `Bottleneck`.
      width: channels of the stem and of the first stage's 3x3 convolutions; each later stage doubles them.
      num_classes: width of the classifier `fc`; `None` leaves it out, and calling the network gives pooled features.
      groups: groups of the bottlenecks' 3x3 convolutions; 32 or 64 make a ResNeXt.
      width_per_group: channels of each group in the first stage, for a `width` of 64.
      stem: `imagenet`, a 7x7 convolution with stride 2 and max-pooling; `cifar`, a 3x3 convolution with stride 1 for
        pictures of about 32 pixels; `deep`, three 3x3 convolutions and max-pooling; or `deep_tiered`, the same with a
        narrower first one.
      stem_width: channels of a deep stem's second convolution; the last has twice as many. The default is half `width`.
      avg_down: whether shortcuts take the means of 2x2 places before their convolutions, which then have no stride.
      replace_stride_with_dilation: for `layer2` to `layer4`, whether dilation takes the place of the stride, as in
        torchvision; for bottlenecks only. Weights fit as they do without.
      norm_layer: makes the normalisations: `BatchNorm`, `GroupNorm`, or `functools.partial(GroupNorm, num_groups=8)`.
      drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first, as in timm. In
        training mode calls then need `rngs`.
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
        groups: int = 1,
        width_per_group: int = 64,
        stem: Stem = "imagenet",
        stem_width: int | None = None,
        avg_down: bool = False,
        replace_stride_with_dilation: Sequence[bool] = (False, False, False),
        norm_layer: NormLayer = BatchNorm,
        drop_path: float = 0.0,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_options(in_channels=in_channels, num_classes=num_classes, **options)
        if stem not in get_args(Stem):
            raise WrongCallError(f"stem must be {' or '.join(map(repr, get_args(Stem)))}, got {stem!r:.60}")
        check_widths(stem_width=stem_width)
        is_deep = stem.startswith("deep")
        if stem_width is not None and not is_deep:
            raise WrongCallError(f"stem_width is for deep stems; with stem={stem!r} it is `width`")
        if not isinstance(avg_down, bool):
            raise WrongCallError(f"avg_down must be True or False, got {avg_down!r:.60}")
        if len(replace_stride_with_dilation) != 3:
            raise WrongCallError(
                "replace_stride_with_dilation takes three values, for layer2, layer3 and layer4, got "
                f"{replace_stride_with_dilation!r:.60}"
            )
        self.in_channels = in_channels
        self.num_features = 8 * width * block.EXPANSION
        self.dtype = dtype or param_dtype
        self.remat = remat
        self.has_pool = stem != "cifar"
        self.avg_down = avg_down
        features = width
        self.conv1: nnx.Conv | DeepStem
        if is_deep:
            inner = stem_width or max(width // 2, 1)
            features = 2 * inner
            first = 3 * max(inner // 4, 1) if stem == "deep_tiered" else inner
            self.conv1 = DeepStem(in_channels, (first, inner, features), norm_layer, **options)
        else:
            self.conv1 = conv(in_channels, width, *((7, 2) if self.has_pool else (3, 1)), **options)
        self.bn1 = norm_layer(features, **options)
        shared: dict[str, Any] = {"groups": groups, "width_per_group": width_per_group, "norm_layer": norm_layer}
        dilation, before = 1, 0
        for number, (blocks, dilate) in enumerate(
            zip(stage_sizes, (False, *replace_stride_with_dilation), strict=True), start=1
        ):
            channels, stride, first_dilation = width * 2 ** (number - 1), 1 if number == 1 else 2, dilation
            if dilate:
                stride, dilation = 1, dilation * stride
            stage: list[nnx.Module] = []
            for index in range(blocks):
                rate = drop_path * (before + index) / max(sum(stage_sizes) - 1, 1)
                inner = first_dilation if index == 0 else dilation
                here = stride if index == 0 else 1
                pool = here if index == 0 and avg_down and (stride > 1 or dilation > 1) else 0
                stage.append(
                    block(features, channels, here, dilation=inner, pool=pool, drop_path=rate, **shared, **options)
                )
                features = channels * block.EXPANSION
            before += blocks
            setattr(self, f"layer{number}", Blocks(stage))
        self.fc = None if num_classes is None else self.new_classifier(num_classes, **options)

    @property
    def strides(self) -> dict[str, int]:
        first = self.conv1.conv1 if isinstance(self.conv1, DeepStem) else self.conv1
        stride = stride_of(first) * (2 if self.has_pool else 1)
        found = {"stem": stride}
        for name in list(self.STAGES)[1:]:
            stride *= math.prod(block.stride for block in getattr(self, name))
            found[name] = stride
        return found

    def stage(self, name: str, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Runs one stage; `feature_info` has the strides and channels of all.

        The stages divide the images' height and width by 4, 4, 8, 16 and 32, and give, of the usual width, 64, 64, 128,
        256 and 512 channels; with bottlenecks 64, 256, 512, 1024 and 2048.
        """
        if name == "stem":
            x = self.conv1(inputs, mask=mask) if isinstance(self.conv1, DeepStem) else self.conv1(inputs)
            x = nnx.relu(normalized(self.bn1, x, mask))
            return max_pool(x, window=3, stride=2, pad=1) if self.has_pool else x
        x = inputs
        for block in getattr(self, name):
            x = self._run_block(block, x, mask, rngs)
        return x

    def pooled(self, inputs: Maps) -> Features:
        """Maps the last stage's output to pooled features `[batch, num_features]`."""
        return jnp.mean(inputs, axis=(1, 2))


class DeepResNetOptions(TrunkOptions, total=False):
    """`TrunkOptions`, and those of `ResNet` but for stem and shortcuts."""

    replace_stride_with_dilation: Sequence[bool]
    norm_layer: NormLayer
    drop_path: float


class ResNetOptions(DeepResNetOptions, total=False):
    """`TrunkOptions`, and those of `ResNet`."""

    stem: Stem
    stem_width: int
    avg_down: bool


@options_of(ResNet)
def resnet18(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet18: 11.2 million parameters without its classifier."""
    return ResNet((2, 2, 2, 2), **options)


@options_of(ResNet)
def resnet34(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet34: 21.3 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), **options)


@options_of(ResNet)
def resnet50(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet50: 23.5 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, **options)


@options_of(ResNet)
def resnet101(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet101: 42.5 million parameters without its classifier."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, **options)


@options_of(ResNet)
def resnet152(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet152: 58.1 million parameters without its classifier."""
    return ResNet((3, 8, 36, 3), block=Bottleneck, **options)


@options_of(ResNet)
def resnext50_32x4d(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt50 of 32 groups: 23.0 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, groups=32, width_per_group=4, **options)


@options_of(ResNet)
def resnext101_32x8d(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt101 of 32 groups: 86.7 million parameters without its classifier."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, groups=32, width_per_group=8, **options)


@options_of(ResNet)
def resnext101_64x4d(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt101 of 64 groups: 81.4 million parameters without its classifier."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, groups=64, width_per_group=4, **options)


@options_of(ResNet)
def wide_resnet50_2(**options: Unpack[ResNetOptions]) -> ResNet:
    """Wide ResNet50, twice as wide inside: 66.8 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, width_per_group=128, **options)


@options_of(ResNet)
def wide_resnet101_2(**options: Unpack[ResNetOptions]) -> ResNet:
    """Wide ResNet101, twice as wide inside: 124.8 million parameters without its classifier."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, width_per_group=128, **options)


# What timm's d, s and t change. A function below decides it itself.
_D: dict[str, Any] = {"stem": "deep", "avg_down": True}
_S: dict[str, Any] = {"stem": "deep", "stem_width": 64}
_T: dict[str, Any] = {"stem": "deep_tiered", "avg_down": True}
_deep = options_of(ResNet, decided=("stem", "stem_width", "avg_down"))


@_deep
def resnet18d(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet18-D: 11.2 million parameters without its classifier."""
    return ResNet((2, 2, 2, 2), **_D, **options)


@_deep
def resnet34d(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet34-D: 21.3 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), **_D, **options)


@_deep
def resnet50d(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet50-D: 23.5 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, **_D, **options)


@_deep
def resnet101d(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet101-D: 42.5 million parameters without its classifier."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, **_D, **options)


@_deep
def resnet152d(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet152-D: 58.2 million parameters without its classifier."""
    return ResNet((3, 8, 36, 3), block=Bottleneck, **_D, **options)


@_deep
def resnet50s(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet50-S: 23.6 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, **_S, **options)


@_deep
def resnet101s(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet101-S: 42.6 million parameters without its classifier."""
    return ResNet((3, 4, 23, 3), block=Bottleneck, **_S, **options)


@_deep
def resnet152s(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet152-S: 58.3 million parameters without its classifier."""
    return ResNet((3, 8, 36, 3), block=Bottleneck, **_S, **options)


@_deep
def resnet50t(**options: Unpack[DeepResNetOptions]) -> ResNet:
    """ResNet50-T: 23.5 million parameters without its classifier."""
    return ResNet((3, 4, 6, 3), block=Bottleneck, **_T, **options)
