"""Broadcasting and mixed dtypes, written out.

So the code runs as it is where a program has set `jax_numpy_rank_promotion=raise` or
`jax_numpy_dtype_promotion=strict`, with which JAX refuses to do either by itself.
"""

from __future__ import annotations

import jax


def of_rank(values: jax.Array, like: jax.Array) -> jax.Array:
    """Returns values `[n]`, one for each place along the last axis, with as many axes as `like`: `[1, ..., n]`."""
    return jax.lax.broadcast_to_rank(values, like.ndim)
