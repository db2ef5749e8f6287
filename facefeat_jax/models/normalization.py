"""Normalisations within a picture, which need no batch: of groups of channels, and of all channels of a place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack, cast

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models._checks import WrongCallError
from facefeat_jax.models._promotion import promoting
from facefeat_jax.models.arrays import Mask, Stage
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.trunk import LayerOptions

NormLayer = Callable[..., nnx.Module]
"""Makes a normalisation, given the number of channels, `dtype`, `param_dtype` and `rngs`: `BatchNorm`, `GroupNorm`."""


class GroupNorm(nnx.GroupNorm):
    """Group normalisation as `torch.nn.GroupNorm` does it: a picture's own statistics, in training and evaluation.

    Args:
      num_features: size of the last axis.
      num_groups: groups of neighbouring channels that are normalised together.
      dtype: dtype of the output; the default is that of inputs and parameters together.
      param_dtype: dtype of the parameters.
      rngs: taken for symmetry with other modules; nothing here is random.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 32,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        if num_features % num_groups:
            raise WrongCallError(
                f"num_groups={num_groups} does not divide {num_features} channels: give norm_layer="
                "functools.partial(GroupNorm, num_groups=...)"
            )
        super().__init__(
            num_features,
            num_groups,
            epsilon=1e-5,
            use_fast_variance=False,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=nnx.Rngs(0) if rngs is None else rngs,
        )

    def __call__(self, inputs: Stage) -> Stage:  # type: ignore[override]
        """Normalises `[batch, ..., num_features]`."""
        return promoting(super().__call__)(inputs)


class LayerNorm(nnx.LayerNorm):
    """Layer normalisation in two passes, as torch's: the fast form loses digits."""

    def __init__(self, width: int, **options: Unpack[LayerOptions]):
        super().__init__(width, epsilon=1e-6, use_fast_variance=False, **options)

    def __call__(self, inputs: Stage) -> Stage:  # type: ignore[override]
        """Normalises the last axis of `[batch, ..., width]`."""
        return promoting(super().__call__)(inputs)


def normalized(layer: nnx.Module, inputs: Stage, mask: Mask | None) -> Stage:
    """Normalises with any layer; only batch normalisation has a use for the mask of rows that count."""
    if isinstance(layer, BatchNorm):
        return layer(inputs, mask=mask)
    return cast(Any, layer)(inputs)
