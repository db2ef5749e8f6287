"""The convolution that residual networks and EfficientNets are made of: torchvision's padding, start and names."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models.cpu import depthwise
from facefeat_jax.models.cpu.convolution import conv_general_dilated
from facefeat_jax.models.sharding import logical_axes

# torchvision's start: normal, variance 2 / fan_out.
_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    in_features: int,
    out_features: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    use_bias: bool = False,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution of NHWC maps that pads by half its kernel on every side, as torchvision's do.

    Args:
      in_features: channels of its inputs.
      out_features: channels of its outputs.
      kernel: side of the kernel, odd.
      stride: along height and width.
      groups: input channels are split into so many groups; `in_features` of them make it depthwise.
      use_bias: whether a bias is added; batch normalisation makes it superfluous.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of the parameters.
      rngs: source of the initial kernel.
    """
    # "SAME" would pad strided convolutions on one side only.
    pad = kernel // 2
    return nnx.Conv(
        in_features,
        out_features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=_he_normal,
        kernel_metadata=logical_axes(None, None, "conv_in", "conv_out"),
        conv_general_dilated=conv_general_dilated if groups == 1 else depthwise.conv_general_dilated,
        rngs=rngs,
    )
