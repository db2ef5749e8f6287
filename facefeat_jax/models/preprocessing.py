"""From uint8 pictures to what a trunk takes; runs inside jit, on the accelerator."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from facefeat_jax.models._promotion import float32_or_wider, of_rank
from facefeat_jax.models.arrays import Pictures

# What torchvision's ImageNet weights were trained with, for RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(
    images: Pictures,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: DTypeLike = jnp.float32,
) -> Float[jax.Array, "*batch height width channels"]:
    """Scales uint8 pictures to [0, 1], subtracts the mean and divides by the deviation, as the baseline does.

    Args:
      images: `[..., channels]`, uint8.
      mean: per channel.
      std: per channel.
      dtype: dtype of the result. The arithmetic is done in float32 or, if that is wider, in `dtype`.

    Returns:
      `[..., channels]` in `dtype`.

    Raises:
      ValueError: the pictures are not uint8; what is already scaled would be scaled twice.
    """
    if images.dtype != jnp.uint8:
        raise ValueError(f"normalize takes uint8 pictures, got {images.dtype}")
    wide = float32_or_wider(dtype)
    scaled = images.astype(wide) / 255
    centred = scaled - of_rank(jnp.asarray(mean, wide), scaled)
    return (centred / of_rank(jnp.asarray(std, wide), scaled)).astype(dtype)
