"""Max-pooling whose gradient XLA compiles to something fast on CPU.

XLA's CPU backend takes the gradient of a maximum over windows (select-and-scatter) apart into four arrays of indices as
large as the map, a reduction over five operands and a scatter: for a ResNet's 3x3 pooling 30 times what PyTorch takes.
Here the maximum is a chain of comparisons between the strided slices of the map, one for each place in the window, and
JAX's own rules differentiate it: forwards, backwards, and again. Elsewhere (GPU, TPU) it is `nnx.max_pool`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


def max_pool(inputs: jax.Array, window: int, stride: int, pad: int) -> jax.Array:
    """Takes the maximum over square windows, as `torch.nn.MaxPool2d(window, stride, pad)` does.

    Where values tie, the gradient goes to the first of the window, row by row, as torch's and XLA's does. NaN wins.
    The choice of the form is made while tracing, by the default backend.

    Args:
      inputs: `[batch, height, width, channels]`, floating.
      window: side of the windows.
      stride: from window to window along height and width.
      pad: rows and columns of minus infinity around the map.

    Returns:
      `[batch, out_height, out_width, channels]`, the same values on every platform.
    """
    if jax.default_backend() != "cpu":
        return nnx.max_pool(inputs, (window, window), strides=(stride, stride), padding=((pad, pad), (pad, pad)))
    padded = jnp.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-jnp.inf)
    height, width = ((side - window) // stride * stride + 1 for side in padded.shape[1:3])
    best: jax.Array | None = None
    for row in range(window):
        for column in range(window):
            here = padded[:, row : row + height : stride, column : column + width : stride]
            best = here if best is None else jnp.where((here > best) | jnp.isnan(here), here, best)
    assert best is not None
    return best
