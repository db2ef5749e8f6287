"""Models with shapes instead of weights, and random numbers to fill them, without compiling anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from facefeat_jax.models._draws import Keys
from facefeat_jax.models._promotion import set_up

Module = TypeVar("Module", bound=nnx.Module)


def abstract(build: Callable[..., Module], *arguments: Any, **options: Any) -> Module:
    """Makes a module without computing anything: its variables hold `jax.ShapeDtypeStruct`.

    The same as `nnx.eval_shape(lambda: build(..., rngs=nnx.Rngs(0)))`, more than twice as fast for a deep network: Flax
    counts the keys that a stream has given in a traced array, whose history grows with every key.

    Args:
      build: a module's class or a function that makes a module, given `rngs`.
      *arguments: passed on to it.
      **options: passed on to it.
    """
    with set_up():
        key = _key(0)  # for every stream: the numbers drawn are never looked at
        rngs = Keys(lambda stream: key)
        return nnx.eval_shape(lambda: build(*arguments, **options, rngs=rngs))


def seeded(seed: int) -> nnx.Rngs:
    """Returns `nnx.Rngs(seed)`, without the programs that JAX and Flax compile to make one.

    Args:
      seed: from 0 up, less than 2**31.
    """
    rngs, key = nnx.eval_shape(lambda: nnx.Rngs(0)), _key(seed)

    def filled(like: jax.ShapeDtypeStruct) -> jax.Array:
        return key if like.dtype == key.dtype else jax.device_put(np.zeros(like.shape, like.dtype))

    nnx.update(rngs, jax.tree.map(filled, nnx.state(rngs)))
    return rngs


def _key(seed: int) -> jax.Array:
    """Returns `jax.random.key(seed)`, without compiling anything where JAX's default generator is in use."""
    if jax.config.values["jax_default_prng_impl"] != "threefry2x32":
        return jax.random.key(seed)
    return jax.random.wrap_key_data(jax.device_put(np.array([0, seed], np.uint32)))
