"""The moving average of the weights. A run with `ema` evaluates, saves and exports this average."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from facefeat_jax.models._promotion import float32_or_wider

Average = Any  # a tree like the averaged values, in float32 or wider


def start(values: Any) -> Average:
    """Returns the initial average: a copy of the values, because the step donates its state."""
    return jax.tree.map(lambda value: jnp.array(value, _wide(value), copy=True), values)


def update(average: Average, values: Any, decay: float, step: jax.Array) -> Average:
    """Adds one more set of values to the average.

    This is `optax.ema(decay, debias=True)`: a mean whose weights shrink by `decay` with each step of age and sum to 1
    from the first step on, so the initial values have no influence. It is written as a move towards the new values, so
    that values that don't change (a frozen stage) stay the same to the last bit. `optax.incremental_update` computes
    `share * new + (1 - share) * old`, which changes the last bit of many a value that stays the same.

    Args:
      average: average over the previous steps.
      values: values after this step; counters (integers) are copied.
      decay: in (0, 1).
      step: `[]`, int32, number of steps before this one.
    """

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new
        share = (1 - decay) / (1 - jnp.power(jnp.asarray(decay, old.dtype), jnp.asarray(step + 1, old.dtype)))
        return old + share * (new.astype(old.dtype) - old)

    return jax.tree.map(moved, average, values)


def as_values(average: Average, like: Any) -> Any:
    """Returns the average in the dtypes of `like`, the values that were averaged."""
    return jax.tree.map(lambda value, other: value.astype(other.dtype), average, like)


def _wide(value: jax.Array) -> Any:
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value.dtype
    return float32_or_wider(value.dtype)
