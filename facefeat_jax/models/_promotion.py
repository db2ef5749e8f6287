"""What JAX does by itself, written out: broadcasting to another rank, mixing dtypes, sending numbers to the device.

So the code runs as it is where a program has set `jax_numpy_rank_promotion=raise`, `jax_numpy_dtype_promotion=strict`
or `jax_transfer_guard=disallow`. Other libraries' code that does not has a context that lets it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

P = ParamSpec("P")
R = TypeVar("R")


def of_rank(values: jax.Array, like: jax.Array) -> jax.Array:
    """Returns values `[n]`, one for each place along the last axis, with as many axes as `like`: `[1, ..., n]`."""
    return jax.lax.broadcast_to_rank(values, like.ndim)


def widest(*dtypes: DTypeLike) -> jnp.dtype:
    """Returns the dtype that arrays of these dtypes are computed in together."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, [jnp.dtype(dtype) for dtype in dtypes])


def float32_or_wider(dtype: DTypeLike) -> jnp.dtype:
    """Returns float32, or the dtype where that is wider."""
    return widest(dtype, jnp.float32)


def together(*values: ArrayLike) -> list[jax.Array]:
    """Returns numbers and arrays as arrays of the dtype that they are computed in together."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*values)
    return [jnp.asarray(value, dtype) for value in values]


@contextlib.contextmanager
def set_up() -> Iterator[None]:
    """Lets what is done once, such as Flax's drawing of weights, mix dtypes and send numbers to the device."""
    with jax.numpy_dtype_promotion("standard"), jax.transfer_guard_host_to_device("allow"):
        yield


def promoting(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function of a library that mixes dtypes by itself, in a context that lets it."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return called
