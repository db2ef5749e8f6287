"""The moving average of the weights, which is what a run with `ema` ends with."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Average = Any  # values like those that are averaged, at least float32


def start(values: Any) -> Average:
    """Returns an average that has seen nothing; it needs storage of its own, since states are given away."""
    return jax.tree.map(lambda value: jnp.array(value, _wide(value), copy=True), values)


def update(average: Average, values: Any, decay: float, step: jax.Array) -> Average:
    """Takes one more set of values into the average.

    It is `optax.ema(decay, debias=True)`: a mean whose weights fall by `decay` with each step of age and add up to 1
    from the first step on, so that the starting values have no part in it. It is written as a move towards the new
    values because then what stands still (a frozen stage) stays what it is, to the last bit.

    Args:
      average: average of the steps before.
      values: after this step; counters (integers) are taken over as they are.
      decay: in (0, 1).
      step: `[]`, int32, how many steps there were before this one.
    """

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new
        share = (1 - decay) / (1 - jnp.power(jnp.asarray(decay, old.dtype), step + 1))
        return old + share * (new.astype(old.dtype) - old)

    return jax.tree.map(moved, average, values)


def as_values(average: Average, like: Any) -> Any:
    """Returns the average in the dtypes of the values that it is of."""
    return jax.tree.map(lambda value, one: value.astype(one.dtype), average, like)


def _wide(value: jax.Array) -> Any:
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value.dtype
    return jnp.promote_types(value.dtype, jnp.float32)
