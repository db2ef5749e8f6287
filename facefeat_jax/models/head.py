"""The head: a two-layer perceptron on pooled features."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import _draws as draws
from facefeat_jax.models._checks import check_widths
from facefeat_jax.models.arrays import Features, Logits
from facefeat_jax.models.sharding import logical_axes


def torch_linear(
    in_features: int,
    out_features: int,
    *,
    dtype: DTypeLike | None = None,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear layer with torch's initial values: weight and bias uniform within 1 / sqrt(in_features)."""
    uniform = draws.uniform(1 / math.sqrt(in_features))
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=uniform,
        bias_init=uniform,
        kernel_metadata=logical_axes("features", "outputs"),
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


class Head(nnx.Module):
    """Linear, ReLU, Linear: pooled features to the logits of one task.

    Args:
      in_features: width of the trunk's pooled features.
      num_outputs: number of logits (`Task.num_outputs`).
      hidden_features: width of the hidden layer; the baseline's is 256.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of the parameters.
      rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 256,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_widths(num_outputs=num_outputs, hidden_features=hidden_features)
        self.hidden = torch_linear(in_features, hidden_features, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.output = torch_linear(hidden_features, num_outputs, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, features: Features) -> Logits:
        """Maps `[batch, in_features]` to logits `[batch, num_outputs]`."""
        return self.output(nnx.relu(self.hidden(features)))
