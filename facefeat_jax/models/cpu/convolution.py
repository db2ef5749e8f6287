"""Convolutions in forms that XLA's CPU backend runs fast, and their gradients too.

Three forms, each the same sum as `lax.conv_general_dilated`, in another order (what each gains is measured by
scripts/lab/measure_cpu_convolution.py):

- patches and one matrix product for tiny maps, where XLA takes up to 20 times longer than the arithmetic needs, for
  the last maps of a single picture, and for 1x1 kernels, whose weight gradient takes it 4 times too long;
- Winograd's minimal filtering for 3x3 kernels over many channels: less than half of the multiplications. Forwards
  only: backwards its many sums cost what the products save;
- elsewhere, and in all gradients but those of patches, XLA's own convolution, the weight gradient a few pictures at a
  time, whose copies with the batch innermost stay in the caches.

They consist of operations that JAX differentiates in every mode and vectorises. On other platforms (`choice`), and for
convolutions of another kind (dilated, grouped), it is `lax.conv_general_dilated`. What is chosen by the batch falls to
that too where the batch is free (`jax.export.symbolic_shape`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from facefeat_jax.models.cpu.choice import by_platform

# The longest side of an input map for which patches are taken.
LARGEST_SIDE = 4
# How many output positions (batch x height x width) are so few that patches are taken whatever the map's size: for one
# picture, XLA (0.10) makes one program of layer4 and the mean after it, which takes five times as long as its parts.
FEW_POSITIONS = 64
# From how many channels (in and out) and positions (batch x height x width) on Winograd's form saves more in products
# than it costs in sums.
WINOGRAD_CHANNELS = 128
WINOGRAD_POSITIONS = 392
# Into how many parts a batch is cut for the weight gradient, at most, and the output positions of a part, at least.
PARTS = 8
PART_POSITIONS = 1568

Padding = Sequence[tuple[int, int]]


def conv_as_patches(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Padding,
    *,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Convolves NHWC `inputs` with an HWIO `kernel` by gathering its patches and multiplying once.

    Args:
      inputs: `[batch, height, width, in_channels]`.
      kernel: `[kernel_height, kernel_width, in_channels, out_channels]`, of the same dtype.
      strides: the strides along height and width.
      padding: zeros added (before, after) along height and width.
      precision: precision of the matrix product.

    Returns:
      `[batch, out_height, out_width, out_channels]`, equal to `lax.conv_general_dilated` up to rounding.
    """
    height, width, in_channels, out_channels = kernel.shape
    # A 1x1 kernel's patches are the inputs, or every other one of them.
    gathered = _slices if (height, width) == (1, 1) else _patches
    patches = gathered(inputs, (height, width), (strides[0], strides[1]), (padding[0], padding[1]))
    patch_matrix = patches.reshape(-1, height * width * in_channels)
    outputs = jnp.matmul(patch_matrix, kernel.reshape(-1, out_channels), precision=precision)
    return outputs.reshape(*patches.shape[:3], out_channels)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _patches(
    inputs: jax.Array, window: tuple[int, int], strides: tuple[int, int], padding: tuple[tuple[int, int], ...]
) -> jax.Array:
    """Returns `[batch, out_height, out_width, places in the window, in_channels]`, zero where the window is outside.

    By indices, which XLA compiles to one loop, where it makes one of each slice of `_slices`.
    """
    batch, *sides, channels = inputs.shape
    rows, columns = map(_places, sides, window, strides, padding)  # [out, window]
    place = np.stack(np.broadcast_arrays(rows[:, None, :, None], columns[None, :, None, :]))
    outside = np.any((place < 0) | (place >= np.reshape(sides, (2, 1, 1, 1, 1))), axis=0)
    flat = np.where(outside, sides[0] * sides[1], place[0] * sides[1] + place[1])
    found = inputs.reshape(batch, -1, channels).at[:, flat.reshape(-1)].get(mode="fill", fill_value=0)
    return found.reshape(batch, len(rows), len(columns), -1, channels)


def _places(side: int, window: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """Returns where the places of the windows lie along an axis: `[out, window]`."""
    out = (side + sum(padding) - window) // stride + 1
    return stride * np.arange(out)[:, None] + np.arange(window) - padding[0]


@_patches.defjvp
def _patches_jvp(window, strides, padding, primals, tangents):
    # The derivative is the same function in other words: of indices the transpose would be a scatter, which is slow.
    (inputs,), (tangent,) = primals, tangents
    return _patches(inputs, window, strides, padding), _slices(tangent, window, strides, padding)


def _slices(inputs: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Padding) -> jax.Array:
    """What `_patches` returns, a slice for each place in the window."""
    padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    ends = [
        (side - size) // stride * stride + 1
        for side, size, stride in zip(padded.shape[1:3], window, strides, strict=True)
    ]
    slices = [
        padded[:, row : row + ends[0] : strides[0], column : column + ends[1] : strides[1]]
        for row in range(window[0])
        for column in range(window[1])
    ]
    return jnp.stack(slices, axis=3)


def conv_winograd(
    inputs: jax.Array, kernel: jax.Array, padding: Padding, *, precision: lax.PrecisionLike = None
) -> jax.Array:
    """Convolves NHWC `inputs` with a 3x3 HWIO `kernel`, at stride 1, by Winograd's F(2x2, 3x3).

    A 2x2 tile of outputs comes from a 4x4 tile of inputs by 16 products in place of 36 (Lavin and Gray 2015,
    https://arxiv.org/abs/1509.09308). Arguments and result are those of `conv_as_patches`.
    """
    batch, height, width, in_channels = inputs.shape
    (top, bottom), (left, right) = padding
    out_height, out_width = height + top + bottom - 2, width + left + right - 2
    rows, columns = -(-out_height // 2), -(-out_width // 2)  # of tiles
    room = ((0, 0), (top, 2 * rows + 2 - top - height), (left, 2 * columns + 2 - left - width), (0, 0))
    # A tile's rows are the even and odd one of its own and of the next pair; its columns likewise.
    pairs = jnp.pad(inputs, room).reshape(batch, rows + 1, 2, columns + 1, 2, in_channels)
    # The barriers keep XLA from taking the sums along one axis anew for each of those along the other.
    row_sums = _tile_sums(pairs[:, :-1, 0], pairs[:, :-1, 1], pairs[:, 1:, 0], pairs[:, 1:, 1])
    row_sums = lax.optimization_barrier(row_sums)
    weights = lax.optimization_barrier([_kernel_sums(*row) for row in _kernel_sums(*kernel)])
    products = []
    for pair, weight in zip(row_sums, weights, strict=True):
        tiles = _tile_sums(pair[:, :, :-1, 0], pair[:, :, :-1, 1], pair[:, :, 1:, 0], pair[:, :, 1:, 1])
        products.append([jnp.matmul(*factors, precision=precision) for factors in zip(tiles, weight, strict=True)])
    halves = [_output_sums(*row) for row in products]
    outputs = [jnp.stack(_output_sums(*column), axis=2) for column in zip(*halves, strict=True)]
    joined = jnp.stack(outputs, axis=4).reshape(batch, 2 * rows, 2 * columns, -1)
    return joined[:, :out_height, :out_width]


def _tile_sums(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any, Any, Any]:
    """Winograd's transform of four inputs in a line."""
    return a - c, b + c, c - b, b - d


def _kernel_sums(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any, Any]:
    """Winograd's transform of the three weights of a line."""
    outer = a + c
    return a, (outer + b) / 2, (outer - b) / 2, c


def _output_sums(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any]:
    """The two outputs of a line, from its four products."""
    return a + b + c, b - c - d


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def conv_in_parts(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], ...],
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Convolves NHWC `inputs` with an HWIO `kernel`; the gradient of `kernel` is summed over parts of the batch.

    The result itself is Winograd's where that pays, else XLA's. Arguments and result are those of `conv_as_patches`.
    """
    if (
        kernel.shape[:2] == (3, 3)
        and strides == (1, 1)
        and min(kernel.shape[2:]) >= WINOGRAD_CHANNELS
        and isinstance(inputs.shape[0], int)
        and inputs.size // inputs.shape[3] >= WINOGRAD_POSITIONS
    ):
        return conv_winograd(inputs, kernel, padding, precision=precision)
    return Plain(strides, padding, precision)(inputs, kernel)


@partial(conv_in_parts.defjvp, symbolic_zeros=True)
def _conv_in_parts_jvp(strides, padding, precision, primals, tangents):
    inputs, kernel = primals
    inputs_tangent, kernel_tangent = tangents
    plain = Plain(strides, padding, precision)
    outputs = conv_in_parts(inputs, kernel, strides, padding, precision)
    terms: list[jax.Array] = []
    if not isinstance(inputs_tangent, SymbolicZero):
        terms.append(plain(inputs_tangent, kernel))
    if not isinstance(kernel_tangent, SymbolicZero):
        terms.append(_in_parts(plain, inputs, kernel_tangent))
    return outputs, sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(outputs)


def _in_parts(plain: Plain, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves a few pictures at a time; the transpose of this is a weight gradient of each part, and their sum.

    The batch lies innermost, as XLA would turn each part for its gradient. It is turned here for all parts at once:
    XLA would compute what a part comes from (a batch normalization's gradient, say) again in a copy of its own for each
    part, which takes seconds to compile.
    """
    batch, height, width, channels = inputs.shape
    positions = max(1, height * width // math.prod(plain.strides))
    count = batch // max(-(-batch // PARTS), -(-PART_POSITIONS // positions)) if isinstance(batch, int) else 1
    if count < 2:
        return plain(inputs, kernel)
    part = batch // count
    turned = inputs[: count * part].reshape(count, part, height, width, channels).transpose(0, 4, 2, 3, 1)
    turned_kernel = kernel.transpose(2, 0, 1, 3)
    convolve = partial(plain.convolve, layouts=("CHWN", "IHWO", "HWNC"))
    parts = jnp.stack([convolve(inputs_of_part, turned_kernel) for inputs_of_part in turned])
    outputs = parts.transpose(0, 3, 1, 2, 4).reshape(count * part, *parts.shape[1:3], parts.shape[4])
    rest = inputs[count * part :]
    return jnp.concatenate([outputs, plain(rest, kernel)]) if rest.shape[0] else outputs


@dataclass(frozen=True)
class Plain:
    """`lax.conv_general_dilated` of NHWC inputs and an HWIO kernel."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], ...]
    precision: lax.PrecisionLike = None
    groups: int = 1

    def __call__(self, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return self.convolve(inputs, kernel, ("NHWC", "HWIO", "NHWC"))

    def convolve(self, inputs: jax.Array, kernel: jax.Array, layouts: tuple[str, str, str]) -> jax.Array:
        """Convolves arrays whose axes lie otherwise."""
        return lax.conv_general_dilated(
            inputs,
            kernel,
            self.strides,
            self.padding,
            dimension_numbers=layouts,
            feature_group_count=self.groups,
            precision=self.precision,
        )


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    **kwargs: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for `nnx.Conv(conv_general_dilated=...)`, in the form that is fast on CPU.

    The form is chosen by the shapes; on other platforms than CPU the lowered program is the same as without it.
    """
    if (
        lhs.ndim == 4
        and lhs.dtype in (jnp.float32, jnp.float64)
        and not isinstance(padding, str)
        and feature_group_count == batch_group_count == 1
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and all(value is None for value in kwargs.values())
    ):
        plain = Plain(tuple(window_strides), tuple(map(tuple, padding)), precision)  # type: ignore[arg-type]
        # Without the barrier XLA computes what the inputs come from (a block's sum, its ReLU) again in the backward
        # pass. It is an operation of its own, so that what all gradients need of the inputs is there once.
        inputs = by_platform(lhs, cpu=_Barrier(), other=_Same())
        return by_platform(inputs, rhs, cpu=_OnCpu(plain), other=plain)
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


@dataclass(frozen=True)
class _Barrier:
    def __call__(self, inputs: jax.Array) -> jax.Array:
        return lax.optimization_barrier(inputs)


@dataclass(frozen=True)
class _Same:
    def __call__(self, inputs: jax.Array) -> jax.Array:
        return inputs


@dataclass(frozen=True)
class _OnCpu:
    """A convolution in the form that is fast on CPU."""

    plain: Plain

    def __call__(self, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        strides, padding, precision = self.plain.strides, self.plain.padding, self.plain.precision
        batch, height, width, _ = inputs.shape
        are_few = isinstance(batch, int) and batch * height * width // (strides[0] * strides[1]) <= FEW_POSITIONS
        if kernel.shape[:2] == (1, 1) or max(height, width) <= LARGEST_SIDE or are_few:
            return conv_as_patches(inputs, kernel, strides, padding, precision=precision)
        return conv_in_parts(inputs, kernel, strides, padding, precision)
