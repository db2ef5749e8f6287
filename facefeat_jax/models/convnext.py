"""ConvNeXt with torchvision's layout, so that its weights fit (Liu et al. 2022, https://arxiv.org/abs/2201.03545)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import _draws as draws
from facefeat_jax.models._checks import WrongCallError, check_options
from facefeat_jax.models._convolution import conv, stride_of
from facefeat_jax.models._dropout import StochasticDepth
from facefeat_jax.models._options import options_of
from facefeat_jax.models._promotion import of_rank
from facefeat_jax.models.arrays import Features, Maps, Mask, NewMaps
from facefeat_jax.models.normalization import LayerNorm
from facefeat_jax.models.sharding import logical_axes
from facefeat_jax.models.trunk import Blocks, LayerOptions, Stages, Trunk, TrunkOptions

# torch's trunc_normal_ cuts at 2, which at this deviation cuts nothing.
_normal = draws.normal(0.02)


class Patches(nnx.Module):
    """Non-overlapping patches, each mapped to the channels of one place: the stem, and what halves maps between stages.

    The stem normalises after the convolution, the others before it.
    """

    def __init__(self, in_features: int, features: int, patch: int, *, is_stem: bool, **options: Unpack[LayerOptions]):
        self.conv = conv(in_features, features, patch, patch, pad=0, use_bias=True, kernel_init=_normal, **options)
        self.norm = LayerNorm(features if is_stem else in_features, **options)
        self.is_stem = is_stem

    def __call__(self, inputs: Maps) -> NewMaps:
        """Maps `[batch, height, width, in_features]` to `[batch, height // patch, width // patch, features]`."""
        return self.norm(self.conv(inputs)) if self.is_stem else self.conv(self.norm(inputs))


class Block(nnx.Module):
    """A depthwise 7x7 convolution, then a perceptron at each place, scaled and added to the inputs.

    Attributes:
      layer_scale: `[features, 1, 1]`, the factor of each channel.
    """

    def __init__(self, features: int, layer_scale: float, drop_path: float, **options: Unpack[LayerOptions]):
        wide = 4 * features
        self.depthwise = conv(features, features, 7, groups=features, use_bias=True, kernel_init=_normal, **options)
        self.norm = LayerNorm(features, **options)
        inward, outward = logical_axes("embed", "mlp"), logical_axes("mlp", "embed")
        self.hidden = nnx.Linear(features, wide, kernel_init=_normal, kernel_metadata=inward, **options)
        self.output = nnx.Linear(wide, features, kernel_init=_normal, kernel_metadata=outward, **options)
        self.layer_scale = nnx.Param(jnp.full((features, 1, 1), layer_scale, options["param_dtype"]))
        self.stochastic_depth = StochasticDepth(drop_path)

    def __call__(self, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> Maps:
        """Maps `[batch, height, width, features]` to the same shape."""
        x = self.hidden(self.norm(self.depthwise(inputs)))
        x = self.output(jax.nn.gelu(x, approximate=False))
        x = x * of_rank(self.layer_scale[...].reshape(-1).astype(x.dtype), x)
        return inputs + self.stochastic_depth(x, rngs=rngs)


class ConvNeXt(Trunk):
    """A ConvNeXt: patches, four stages of blocks, average pooling, a normalisation, and maybe a classifier.

    Args:
      depths: how many blocks the stages have.
      widths: their channels.
      drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first.
      layer_scale: what the factors of the blocks start as.

    The other arguments are `TrunkOptions`.
    """

    STAGES: ClassVar[Stages] = {
        "stem": ("stem",),
        "stage1": ("stage1",),
        "stage2": ("downsample2", "stage2"),
        "stage3": ("downsample3", "stage3"),
        "stage4": ("downsample4", "stage4", "norm"),
    }
    LAST: ClassVar[tuple[str, ...]] = ("stage4",)

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        drop_path: float = 0.1,
        layer_scale: float = 1e-6,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_options(in_channels=in_channels, num_classes=num_classes, **options)
        self.in_channels = in_channels
        self.num_features = widths[-1]
        self.dtype = dtype or param_dtype
        self.remat = remat
        self.stem = Patches(in_channels, widths[0], 4, is_stem=True, **options)
        before = 0
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            if number > 1:
                between = Patches(widths[number - 2], width, 2, is_stem=False, **options)
                setattr(self, f"downsample{number}", between)
            rates = [drop_path * (before + index) / max(sum(depths) - 1, 1) for index in range(depth)]
            setattr(self, f"stage{number}", Blocks(Block(width, layer_scale, rate, **options) for rate in rates))
            before += depth
        self.norm = LayerNorm(self.num_features, **options)
        self.fc = None if num_classes is None else self.new_classifier(num_classes, **options)

    @property
    def strides(self) -> dict[str, int]:
        found = {"stem": stride_of(self.stem.conv)}
        found["stage1"] = found["stem"]
        for number in (2, 3, 4):
            stride = stride_of(getattr(self, f"downsample{number}").conv)
            found[f"stage{number}"] = found[f"stage{number - 1}"] * stride
        return found

    def check_size(self, images: jax.Array) -> None:
        """Raises ValueError for images that are smaller than the last map's stride."""
        super().check_size(images)
        least = self.strides["stage4"]
        if any(side < least for side in images.shape[1:3]):
            raise WrongCallError(f"a ConvNeXt takes images of {least} pixels or more, got {images.shape}; resize them")

    def stage(self, name: str, inputs: Maps, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> NewMaps:
        """Runs one stage; `feature_info` has the strides and channels of all."""
        if name == "stem":
            return self.stem(inputs)
        x = inputs if name == "stage1" else getattr(self, name.replace("stage", "downsample"))(inputs)
        for block in getattr(self, name):
            x = self._run_block(block, x, mask, rngs)
        return x

    def pooled(self, inputs: Maps) -> Features:
        """Maps the last stage's output to pooled, normalised features `[batch, num_features]`."""
        return self.norm(jnp.mean(inputs, axis=(1, 2)))

    def new_classifier(self, num_classes: int, **options: Unpack[LayerOptions]) -> nnx.Linear:
        """Makes a classifier that starts as torchvision's: normal, with a deviation of 0.02."""
        axes = logical_axes("features", "outputs")
        return nnx.Linear(self.num_features, num_classes, kernel_init=_normal, kernel_metadata=axes, **options)


class ConvNeXtOptions(TrunkOptions, total=False):
    """`TrunkOptions`, and those of `ConvNeXt`."""

    drop_path: float
    layer_scale: float


@options_of(ConvNeXt)
def convnext_tiny(**options: Unpack[ConvNeXtOptions]) -> ConvNeXt:
    """ConvNeXt-T: 27.8 million parameters without its classifier."""
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), **options)


@options_of(ConvNeXt)
def convnext_small(**options: Unpack[ConvNeXtOptions]) -> ConvNeXt:
    """ConvNeXt-S: 49.5 million parameters without its classifier."""
    options.setdefault("drop_path", 0.4)
    return ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), **options)


@options_of(ConvNeXt)
def convnext_base(**options: Unpack[ConvNeXtOptions]) -> ConvNeXt:
    """ConvNeXt-B: 87.6 million parameters without its classifier."""
    options.setdefault("drop_path", 0.5)
    return ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), **options)


@options_of(ConvNeXt)
def convnext_large(**options: Unpack[ConvNeXtOptions]) -> ConvNeXt:
    """ConvNeXt-L: 196.2 million parameters without its classifier."""
    options.setdefault("drop_path", 0.5)
    return ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536), **options)
