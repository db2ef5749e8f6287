"""Max-pooling whose gradient XLA compiles to something fast on CPU.

XLA's CPU backend takes the gradient of a maximum over windows (select-and-scatter) apart into four arrays of indices as
large as the map, a reduction over five operands and a scatter: for a ResNet's 3x3 pooling 30 times what PyTorch takes.
Here the maximum is a chain of comparisons between strided slices, along the rows and then along the columns, and JAX's
own rules differentiate it: forwards, backwards, and again. Elsewhere (GPU, TPU) it is `nnx.max_pool` (`choice`).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from facefeat_jax.models.cpu.choice import by_platform


def max_pool(inputs: jax.Array, window: int, stride: int, pad: int) -> jax.Array:
    """Takes the maximum over square windows, as `torch.nn.MaxPool2d(window, stride, pad)` does.

    Where values tie, the gradient goes to the first of the window, row by row, as torch's and XLA's does. NaN wins.
    Args:
      inputs: `[batch, height, width, channels]`, floating.
      window: side of the windows.
      stride: from window to window along height and width.
      pad: rows and columns of minus infinity around the map.

    Returns:
      `[batch, out_height, out_width, channels]`, the same values on every platform.
    """
    return by_platform(inputs, cpu=_Chain(window, stride, pad), other=_Windows(window, stride, pad))


@dataclass(frozen=True)
class _Windows:
    window: int
    stride: int
    pad: int

    def __call__(self, inputs: jax.Array) -> jax.Array:
        window, strides, padding = ((value, value) for value in (self.window, self.stride, (self.pad, self.pad)))
        return nnx.max_pool(inputs, window, strides=strides, padding=padding)


@dataclass(frozen=True)
class _Chain:
    window: int
    stride: int
    pad: int

    def __call__(self, inputs: jax.Array) -> jax.Array:
        pad = (self.pad, self.pad)
        padded = jnp.pad(inputs, ((0, 0), pad, pad, (0, 0)), constant_values=-jnp.inf)
        # Along the rows first: of equal values in several rows the next step takes the first row's.
        return self._along(self._along(padded, axis=2), axis=1)

    def _along(self, inputs: jax.Array, axis: int) -> jax.Array:
        length = (inputs.shape[axis] - self.window) // self.stride * self.stride + 1
        best, *others = (
            lax.slice_in_dim(inputs, start, start + length, self.stride, axis) for start in range(self.window)
        )
        for here in others:
            best = jnp.where((here > best) | jnp.isnan(here), here, best)
        return best
