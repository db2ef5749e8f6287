"""The Vision Transformer with torchvision's layout, so that its weights fit.

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import _draws as draws
from facefeat_jax.models._checks import WrongCallError, check_options
from facefeat_jax.models._dropout import Dropout, StochasticDepth
from facefeat_jax.models._options import options_of
from facefeat_jax.models._positions import resized_positions
from facefeat_jax.models._promotion import float32_or_wider
from facefeat_jax.models.arrays import Attention, Features, Images, Mask, Stage, Tokens
from facefeat_jax.models.normalization import LayerNorm
from facefeat_jax.models.sharding import logical_axes
from facefeat_jax.models.trunk import LayerOptions, Stages, Trunk, TrunkOptions


class Embedding(nnx.Module):
    """Cuts pictures into patches, maps each to a token, puts the class token before them and adds their positions.

    Attributes:
      projection: the convolution whose kernel and stride are a patch.
      class_token: `[1, 1, width]`.
      positions: `[1, 1 + grid * grid, width]`: of the class token, then of the patches row by row.
      grid: patches along a side of the pictures that it is made for; for others the positions are resized.
    """

    def __init__(self, in_channels: int, width: int, patch: int, grid: int, **options: Unpack[LayerOptions]):
        # torch's trunc_normal_ cuts at 2, which at these deviations cuts nothing.
        self.projection = nnx.Conv(
            in_channels,
            width,
            (patch, patch),
            strides=(patch, patch),
            padding="VALID",
            kernel_init=draws.normal(math.sqrt(1 / (in_channels * patch * patch))),
            kernel_metadata=logical_axes(None, None, "channels", "embed"),
            **options,
        )
        param_dtype = options["param_dtype"]
        positions = jax.random.normal(options["rngs"].params(), (1, 1 + grid * grid, width), param_dtype) * 0.02
        self.class_token = nnx.Param(jnp.zeros((1, 1, width), param_dtype), **logical_axes(None, None, "embed"))
        self.positions = nnx.Param(positions, **logical_axes(None, None, "embed"))
        self.grid = grid

    def __call__(self, images: Images) -> Tokens:
        """Maps `[batch, height, width, channels]` to tokens `[batch, 1 + height / patch * width / patch, width]`."""
        patches = self.projection(images)
        batch, rows, columns, width = patches.shape
        class_token, positions = (value[...].astype(patches.dtype) for value in (self.class_token, self.positions))
        if (rows, columns) != (self.grid, self.grid):
            positions = resized_positions(positions, (rows, columns))
        tokens = [jnp.broadcast_to(class_token, (batch, 1, width)), patches.reshape(batch, rows * columns, width)]
        return jnp.concatenate(tokens, axis=1) + positions


class SelfAttention(nnx.Module):
    """Multi-head self-attention; queries, keys and values come from one matrix, as in torch's `MultiheadAttention`."""

    def __init__(self, width: int, heads: int, **options: Unpack[LayerOptions]):
        uniform = draws.uniform(1 / math.sqrt(width))
        # torch starts the three as the matrix that they are stored in, and the output like any linear layer.
        inward, outward = logical_axes("embed", "heads"), logical_axes("heads", "embed")
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=draws.xavier_uniform, kernel_metadata=inward, **options)
        self.out = nnx.Linear(width, width, kernel_init=uniform, kernel_metadata=outward, **options)
        self.heads = heads

    def __call__(self, tokens: Tokens) -> Tokens:
        """Maps `[batch, tokens, width]` to the same shape."""
        weights, value = self._weigh(tokens)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
        return self.out(mixed.reshape(tokens.shape))

    def weights(self, tokens: Tokens) -> Attention:
        """Returns how much each token takes from each other, `[batch, heads, tokens, tokens]`: rows with the sum 1."""
        return self._weigh(tokens)[0]

    def _weigh(self, tokens: Tokens) -> tuple[Attention, jax.Array]:
        """Returns the weights, and the values that they are for: `[batch, tokens, heads, width / heads]`."""
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bqhd,bkhd->bhqk", query / math.sqrt(width // self.heads), key)
        # The sum of many exponentials: in float32 where the rest is narrower.
        return jax.nn.softmax(scores.astype(float32_or_wider(scores.dtype)), axis=-1), value


class MLP(nnx.Module):
    """Two linear layers with an exact GELU between them; each is followed by dropout."""

    def __init__(self, width: int, hidden: int, dropout: float, **options: Unpack[LayerOptions]):
        init: dict[str, Any] = {"kernel_init": draws.xavier_uniform, "bias_init": draws.normal(1e-6)}
        self.hidden = nnx.Linear(width, hidden, kernel_metadata=logical_axes("embed", "mlp"), **init, **options)
        self.output = nnx.Linear(hidden, width, kernel_metadata=logical_axes("mlp", "embed"), **init, **options)
        self.dropout = Dropout(dropout)

    def __call__(self, tokens: Tokens, *, rngs: nnx.Rngs | None = None) -> Tokens:
        """Maps `[batch, tokens, width]` to the same shape."""
        x = self.dropout(jax.nn.gelu(self.hidden(tokens), approximate=False), rngs=rngs)
        return self.dropout(self.output(x), rngs=rngs)


class EncoderBlock(nnx.Module):
    """Self-attention and a perceptron, each on normalised tokens and added to them."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, drop_path: float, **options: Unpack[LayerOptions]
    ):
        self.norm1 = LayerNorm(width, **options)
        self.attention = SelfAttention(width, heads, **options)
        self.dropout = Dropout(dropout)
        self.norm2 = LayerNorm(width, **options)
        self.mlp = MLP(width, hidden, dropout, **options)
        self.drop_path = StochasticDepth(drop_path, axes=2) if drop_path else None

    def __call__(self, tokens: Tokens, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> Tokens:
        """Maps `[batch, tokens, width]` to the same shape."""
        x = tokens + self._kept(self.dropout(self.attention(self.norm1(tokens)), rngs=rngs), rngs)
        return x + self._kept(self.mlp(self.norm2(x), rngs=rngs), rngs)

    def _kept(self, branch: Tokens, rngs: nnx.Rngs | None) -> Tokens:
        return branch if self.drop_path is None else self.drop_path(branch, rngs=rngs)


class VisionTransformer(Trunk):
    """A Vision Transformer: patches to tokens, encoder blocks, a last normalisation, and maybe a classifier.

    The pooled features are the class token's. It takes pictures of any size whose sides are multiples of the patch, and
    with `pad` of any other too: where they are not what it is made for, its position embeddings are resized as it runs,
    as torchvision's `interpolate_embeddings` does once.

    Args:
      patch: side of a patch in pixels.
      depth: number of encoder blocks.
      width: width of the tokens.
      heads: number of attention heads.
      hidden: width of the perceptrons' hidden layers.
      image_size: side of the square pictures that it is made for.
      dropout: rate after the embedding, the attention, and both layers of the perceptrons; torchvision's is 0.
      drop_path: rate of stochastic depth of the last block; it grows linearly from 0 at the first, as in timm. In
        training mode calls then need `rngs`.
      pad: add zeros at the right and the bottom of pictures whose sides are no multiples of the patch.

    The other arguments are `TrunkOptions`.
    """

    def __init__(
        self,
        patch: int,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        *,
        image_size: int = 224,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pad: bool = False,
        num_classes: int | None = None,
        in_channels: int = 3,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < patch or image_size % patch:
            raise WrongCallError(f"image_size must be a multiple of the patch, {patch} pixels, got {image_size!r:.60}")
        options: LayerOptions = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_options(in_channels=in_channels, num_classes=num_classes, **options)
        self.patch, self.depth, self.pad = patch, depth, pad
        self.in_channels = in_channels
        self.num_features = width
        self.dtype = dtype or param_dtype
        self.remat = remat
        self.stem = Embedding(in_channels, width, patch, image_size // patch, **options)
        self.dropout = Dropout(dropout)
        for number in range(depth):
            rate = drop_path * number / max(depth - 1, 1)
            setattr(self, f"block{number}", EncoderBlock(width, heads, hidden, dropout, rate, **options))
        self.norm = LayerNorm(width, **options)
        self.fc = None if num_classes is None else self.new_classifier(num_classes, **options)

    def new_classifier(self, num_classes: int, **options: Unpack[LayerOptions]) -> nnx.Linear:
        """Makes a classifier that starts as torchvision's: all zeros."""
        zeros, axes = nnx.initializers.zeros, logical_axes("features", "outputs")
        return nnx.Linear(self.num_features, num_classes, kernel_init=zeros, kernel_metadata=axes, **options)

    # Not static methods: `nnx.tabulate` would take them for methods of an instance, and leave them so.
    @classmethod
    def stages_of(cls, depth: int) -> Stages:
        """Returns `STAGES` of a network with that many blocks."""
        blocks = (f"block{number}" for number in range(depth))
        return {name: (name,) for name in ("stem", *blocks, "norm")}

    @classmethod
    def last_of(cls, depth: int) -> tuple[str, ...]:
        """Returns `LAST` of a network with that many blocks."""
        return (f"block{depth - 1}", "norm")

    @property
    def STAGES(self) -> Stages:
        return self.stages_of(self.depth)

    @property
    def LAST(self) -> tuple[str, ...]:
        return self.last_of(self.depth)

    @property
    def multiple(self) -> int:
        return self.patch

    @property
    def strides(self) -> dict[str, int]:
        return dict.fromkeys(self.STAGES, self.patch)

    def check_size(self, images: jax.Array) -> None:
        """Raises ValueError for images whose sides are not multiples of the patch, unless they are padded."""
        super().check_size(images)
        if not self.pad and any(side % self.patch for side in images.shape[1:3]):
            raise WrongCallError(
                f"a Vision Transformer with patches of {self.patch} pixels takes images whose height and width are "
                f"multiples of that, got {images.shape}; resize them, or make it with pad=True, which adds zeros"
            )

    def stage(self, name: str, inputs: Stage, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> Tokens:
        """Runs one stage; all give tokens `[batch, 1 + patches, width]`, the class token first."""
        if name == "stem":
            return self.dropout(self.stem(self._padded(inputs)), rngs=rngs)
        if name == "norm":
            return self.norm(inputs)
        return self._run_block(getattr(self, name), inputs, mask, rngs)

    def _padded(self, images: Stage) -> Stage:
        height, width = (-side % self.patch for side in images.shape[1:3]) if self.pad else (0, 0)
        return jnp.pad(images, ((0, 0), (0, height), (0, width), (0, 0))) if height or width else images

    def tokens(self, images: Images, *, rngs: nnx.Rngs | None = None) -> Tokens:
        """Returns all tokens after the last normalisation, `[batch, 1 + patches, width]`, the class token first."""
        return self(images, until="norm", rngs=rngs)

    def attention(self, images: Images, *, rngs: nnx.Rngs | None = None) -> dict[str, Attention]:
        """Returns the attention maps of each block, `[batch, heads, 1 + patches, 1 + patches]`, by its name.

        A row says how much a token takes from each other; its sum is 1. The first is the class token's.
        """
        self._check(images)
        maps: dict[str, Attention] = {}
        x: Stage = images
        for name in list(self.STAGES)[:-1]:
            if name != "stem":
                block = getattr(self, name)
                maps[name] = block.attention.weights(block.norm1(x))
            x = self.stage(name, x, rngs=rngs)
        return maps

    def as_map(self, outputs: Stage, images: Images) -> Stage:
        """Returns the patches' tokens in place: `[batch, height / patch, width / patch, width of the tokens]`."""
        batch, _, width = outputs.shape
        rows, columns = (-(-side // self.patch) for side in images.shape[1:3])
        return outputs[:, 1:].reshape(batch, rows, columns, width)

    def pooled(self, inputs: Tokens) -> Features:
        """Returns the class token of the last stage's output: pooled features `[batch, num_features]`."""
        return inputs[:, 0]


class ViTOptions(TrunkOptions, total=False):
    """`TrunkOptions`, and those of `VisionTransformer`."""

    image_size: int
    dropout: float
    drop_path: float
    pad: bool


_BASE: dict[str, int] = {"depth": 12, "width": 768, "heads": 12, "hidden": 3072}
_LARGE: dict[str, int] = {"depth": 24, "width": 1024, "heads": 16, "hidden": 4096}


@options_of(VisionTransformer)
def vit_b_16(**options: Unpack[ViTOptions]) -> VisionTransformer:
    """ViT-B/16: 85.8 million parameters without its classifier."""
    return VisionTransformer(16, **_BASE, **options)


@options_of(VisionTransformer)
def vit_b_32(**options: Unpack[ViTOptions]) -> VisionTransformer:
    """ViT-B/32: 87.5 million parameters without its classifier."""
    return VisionTransformer(32, **_BASE, **options)


@options_of(VisionTransformer)
def vit_l_16(**options: Unpack[ViTOptions]) -> VisionTransformer:
    """ViT-L/16: 303.3 million parameters without its classifier."""
    return VisionTransformer(16, **_LARGE, **options)


@options_of(VisionTransformer)
def vit_l_32(**options: Unpack[ViTOptions]) -> VisionTransformer:
    """ViT-L/32: 305.5 million parameters without its classifier."""
    return VisionTransformer(32, **_LARGE, **options)
