"""Depthwise convolutions as sums of shifted maps, for XLA on CPU.

XLA's CPU convolution is slow at many groups. Shifting the map by each place of the kernel, weighing and adding up is
the same sum in another order and compiles to plain loops: a training step of EfficientNet B0 takes a third of the time
on 96-pixel pictures and a tenth on 32-pixel ones, and compiles nearly twice as long (scripts/lab/measure_depthwise.py).
Elsewhere (GPU, TPU) it is `lax.conv_general_dilated` (`choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from facefeat_jax.models._promotion import float32_or_wider, of_rank
from facefeat_jax.models.cpu.choice import by_platform
from facefeat_jax.models.cpu.convolution import Plain


def depthwise_as_shifts(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    """Convolves each channel of NHWC `inputs` with its own kernel.

    Args:
      inputs: `[batch, height, width, channels]`.
      kernel: `[kernel_height, kernel_width, 1, channels]`, of the same dtype.
      strides: the strides along height and width.
      padding: zeros added (before, after) along height and width.

    Returns:
      `[batch, out_height, out_width, channels]`, equal to `lax.conv_general_dilated` up to rounding.
    """
    padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (padded.shape[axis + 1] - kernel.shape[axis]) // strides[axis] * strides[axis] + 1 for axis in (0, 1)
    )
    # Narrow types are added up in float32, as a convolution does.
    wide = float32_or_wider(inputs.dtype)
    total = None
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            shifted = padded[:, row : row + rows : strides[0], column : column + columns : strides[1]]
            part = shifted.astype(wide) * of_rank(kernel[row, column, 0].astype(wide), padded)
            total = part if total is None else total + part
    assert total is not None
    return total.astype(inputs.dtype)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    **kwargs: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for `nnx.Conv(conv_general_dilated=...)` of a depthwise convolution, as shifts on CPU.

    On other platforms than CPU the lowered program is the same as without it.
    """
    dilations = (*(kwargs.get("lhs_dilation") or ()), *(kwargs.get("rhs_dilation") or ()))
    is_depthwise = kwargs.get("feature_group_count") == lhs.shape[-1] == rhs.shape[-1]
    if is_depthwise and not isinstance(padding, str) and set(dilations) <= {1}:
        plain = Plain(tuple(window_strides), tuple(map(tuple, padding)), kwargs.get("precision"), lhs.shape[-1])  # type: ignore[arg-type]
        return by_platform(lhs, rhs, cpu=_Shifts(plain), other=plain)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)


@dataclass(frozen=True)
class _Shifts:
    plain: Plain

    def __call__(self, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return depthwise_as_shifts(inputs, kernel, self.plain.strides, self.plain.padding)
