"""Convolutions on very small maps as patches and one matrix product, for XLA on CPU.

XLA's CPU convolution collapses on tiny maps: a 3x3 kernel with 512 channels takes about 20 times longer on a 2x2 map
than the arithmetic needs, and its gradients are worse. A ResNet18 on 64-pixel pictures ends in just such maps. The
formulation here is the same sum in another order. Elsewhere (GPU, TPU, larger maps) `lax.conv_general_dilated` is
called unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# The longest side of an input map for which patches are taken (measured: scripts/measure_cpu_convolution.py).
LARGEST_SIDE = 4


def conv_as_patches(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Convolves NHWC `inputs` with an HWIO `kernel` by gathering its patches and multiplying once.

    Args:
      inputs: `[batch, height, width, in_channels]`.
      kernel: `[kernel_height, kernel_width, in_channels, out_channels]`, of the same dtype.
      strides: the strides along height and width.
      padding: zeros added (before, after) along height and width.
      precision: of the matrix product.

    Returns:
      `[batch, out_height, out_width, out_channels]`, equal to `lax.conv_general_dilated` up to rounding.
    """
    kernel_height, kernel_width, in_channels, out_channels = kernel.shape
    padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    out_height = (padded.shape[1] - kernel_height) // strides[0] + 1
    out_width = (padded.shape[2] - kernel_width) // strides[1] + 1
    patches = [
        padded[
            :,
            row : row + (out_height - 1) * strides[0] + 1 : strides[0],
            column : column + (out_width - 1) * strides[1] + 1 : strides[1],
        ]
        for row in range(kernel_height)
        for column in range(kernel_width)
    ]
    patch_matrix = jnp.concatenate(patches, axis=-1).reshape(-1, kernel_height * kernel_width * in_channels)
    outputs = jnp.matmul(patch_matrix, kernel.reshape(-1, out_channels), precision=precision)
    return outputs.reshape(-1, out_height, out_width, out_channels)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    **kwargs: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for `nnx.Conv(conv_general_dilated=...)`, with the detour for small maps on CPU.

    The choice is made while tracing, by the default backend: on a GPU the traced program is the same as without it.
    """
    if (
        jax.default_backend() == "cpu"
        and max(lhs.shape[1:3]) <= LARGEST_SIDE
        and not isinstance(padding, str)
        and feature_group_count == batch_group_count == 1
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    ):
        return conv_as_patches(lhs, rhs, window_strides, padding, precision=precision)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        **kwargs,
    )
