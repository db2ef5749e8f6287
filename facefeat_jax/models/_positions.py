"""Position embeddings of a Vision Transformer, resized to another grid of patches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


def resized_positions(
    positions: Float[jax.Array, "1 tokens width"], grid: tuple[int, int]
) -> Float[jax.Array, "1 new_tokens width"]:
    """Resizes position embeddings to another grid of patches, as torchvision's `interpolate_embeddings` does.

    Bicubic, with the corners in place; the class token's is kept. It is linear, so gradients go through it.

    Args:
      positions: `[1, 1 + n * n, width]`.
      grid: rows and columns wanted.

    Returns:
      `[1, 1 + rows * columns, width]`.
    """
    side = math.isqrt(positions.shape[1] - 1)
    width = positions.shape[2]
    rows, columns = (jnp.asarray(bicubic(side, wanted), positions.dtype) for wanted in grid)
    image = positions[0, 1:].reshape(side, side, width)
    resized = jnp.einsum("yi,xj,ijc->yxc", rows, columns, image).reshape(1, -1, width)
    return jnp.concatenate([positions[:, :1], resized], axis=1)


def bicubic(size: int, wanted: int) -> Float[np.ndarray, "{wanted} {size}"]:
    """Returns the matrix `[wanted, size]` of torch's bicubic interpolation with `align_corners=True`."""
    steepness = -0.75
    matrix = np.zeros((wanted, size))
    for row in range(wanted):
        at = row * (size - 1) / (wanted - 1) if wanted > 1 else 0.0
        first = math.floor(at)
        for neighbour in range(first - 1, first + 3):
            distance = abs(at - neighbour)
            if distance <= 1:
                weight = ((steepness + 2) * distance - (steepness + 3)) * distance**2 + 1
            else:
                weight = ((distance - 5) * distance + 8) * distance * steepness - 4 * steepness
            matrix[row, min(max(neighbour, 0), size - 1)] += weight  # beyond the edge its value is repeated
    return matrix
