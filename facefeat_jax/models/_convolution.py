"""The convolution that residual networks and EfficientNets are made of: torchvision's padding, start and names."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import _draws as draws
from facefeat_jax.models.cpu import depthwise
from facefeat_jax.models.cpu.convolution import conv_general_dilated
from facefeat_jax.models.sharding import logical_axes

# torchvision's start: normal, variance 2 / fan_out.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
# How many numbers are drawn at once where more are drawn than needed.
_SIZES = (1 << 12, 1 << 15, 1 << 18, 1 << 21)


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any, out_sharding: Any = None) -> jax.Array:
    """Returns what `_he_normal` does, to the bit, with a few programs for all shapes instead of one for each.

    JAX draws a number from the key and the number's place in the array, row by row. So the first numbers of a longer
    vector are those of any shape, and the same program draws them; compiling one takes longer than the numbers do.
    """
    if out_sharding is not None or jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        return _he_normal(key, shape, dtype)
    deviation = np.sqrt(np.array(2.0 / (math.prod(shape) / shape[-2]), dtype))
    if isinstance(key, jax.core.Tracer):
        return draws.normal(deviation)(key, shape, dtype)
    size = next((size for size in _SIZES if size >= math.prod(shape)), None)
    if size is None or not draws.depends_on_place_alone(key):
        return _he_normal(key, shape, dtype)
    numbers = jax.device_get(jax.random.normal(key, (size,), dtype))[: math.prod(shape)].reshape(shape)
    return jax.device_put(numbers * deviation)


def conv(
    in_features: int,
    out_features: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    pad: int | None = None,
    use_bias: bool = False,
    kernel_init: nnx.Initializer = he_normal,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution of NHWC maps that pads by half its extent on every side, as torchvision's do.

    Args:
      in_features: channels of its inputs.
      out_features: channels of its outputs.
      kernel: side of the kernel, odd.
      stride: along height and width.
      groups: input channels are split into so many groups; `in_features` of them make it depthwise.
      dilation: steps between the places of the kernel.
      pad: zeros on every side, where it is not half the kernel's extent.
      use_bias: whether a bias is added; batch normalisation makes it superfluous.
      kernel_init: how the kernel starts.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of the parameters.
      rngs: source of the initial kernel.
    """
    # "SAME" would pad strided convolutions on one side only.
    pad = dilation * (kernel // 2) if pad is None else pad
    return nnx.Conv(
        in_features,
        out_features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=kernel_init,
        kernel_metadata=logical_axes(None, None, "conv_in", "conv_out"),
        conv_general_dilated=conv_general_dilated if groups == 1 else depthwise.conv_general_dilated,
        rngs=rngs,
    )


def stride_of(layer: nnx.Conv) -> int:
    """Returns the stride of a square convolution."""
    return layer.strides if isinstance(layer.strides, int) else (layer.strides or (1,))[0]
