"""Random numbers for new weights: those of all arrays of a model by one loop instead of a program for each array.

JAX draws a number from the key and the number's place in the array, row by row, and from nothing else. So any number
can be had on its own, and the same few lines draw those of every array. Compiling them for each shape takes longer than
the numbers do.
"""

from __future__ import annotations

import contextvars
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.random import threefry2x32_p

Module = TypeVar("Module", bound=nnx.Module)

_BLOCK = 1 << 15  # how many numbers are drawn at a time


class _Wanted(NamedTuple):
    """An array of random numbers.

    Attributes:
      key: number of its key.
      shape: its shape.
      dtype: float32 or float64.
      bound: uniform numbers lie within it; None for standard normal ones.
      times: what they are multiplied by.
    """

    key: int
    shape: tuple[int, ...]
    dtype: np.dtype
    bound: float | None
    times: float | np.floating


_Giver = Callable[[jax.Array, _Wanted], jax.Array | None]
_giver: contextvars.ContextVar[_Giver | None] = contextvars.ContextVar("giver", default=None)


def normal(deviation: float | np.floating) -> nnx.Initializer:
    """Returns an initializer: `jax.random.normal` times the deviation, as that of `nnx.initializers.normal`."""

    def initializer(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        given = _given(key, shape, dtype, None, deviation)
        return jax.random.normal(key, shape, dtype) * jnp.array(deviation, dtype) if given is None else given

    return initializer


def uniform(bound: float) -> nnx.Initializer:
    """Returns an initializer: `jax.random.uniform` between `-bound` and `bound`."""

    def initializer(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        given = _given(key, shape, dtype, bound, 1.0)
        return jax.random.uniform(key, shape, dtype, -bound, bound) if given is None else given

    return initializer


_xavier_uniform = nnx.initializers.xavier_uniform()


def xavier_uniform(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """Returns what the initializer `nnx.initializers.xavier_uniform()` does, for a matrix."""
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        return _xavier_uniform(key, shape, dtype)
    inputs, outputs = shape
    variance = np.array(1.0 / ((inputs + outputs) / 2), dtype)
    given = _given(key, shape, dtype, 1.0, np.sqrt(np.array(3, dtype) * variance))
    return _xavier_uniform(key, shape, dtype) if given is None else given


def depends_on_place_alone(key: jax.Array) -> bool:
    """Returns whether a number that is drawn with a key depends on the key and its place, and not on the shape."""
    return (
        jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and str(jax.random.key_impl(key)) == "threefry2x32"
        and bool(getattr(jax.config, "jax_threefry_partitionable", False))
    )


def _given(key: jax.Array, shape: Any, dtype: Any, bound: float | None, times: float | np.floating) -> jax.Array | None:
    """Returns the array where those of a whole module are drawn together, else None."""
    give = _giver.get()
    if give is None or jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        return None
    return give(key, _Wanted(-1, tuple(shape), np.dtype(dtype), bound, times))


class Keys(nnx.Rngs):
    """Stands in for `nnx.Rngs`; a function of the stream's name gives its keys."""

    def __init__(self, give: Callable[[str], jax.Array]):
        self._give = give

    def __getattr__(self, stream: str) -> Callable[[], jax.Array]:
        return lambda: self._give(stream)

    __getitem__ = __getattr__


class Plan(Generic[Module]):
    """What is drawn where a module is made; planned without computing anything.

    Attributes:
      module: the module with shapes for weights.

    Args:
      build: makes the module, given `rngs`; the same whenever it is called.
      rngs: source of the numbers; it is left as it is.
    """

    def __init__(self, build: Callable[[nnx.Rngs], Module], rngs: nnx.Rngs):
        self._build = build
        self._streams: list[str] = []  # where each key is from
        self._wanted: list[_Wanted] = []
        self._together = all(depends_on_place_alone(stream.key[...]) for _, stream in rngs.items())
        keys: list[jax.Array] = []  # held, so that no two are at one place

        def hand_out(stream: str) -> jax.Array:
            keys.append(jax.random.wrap_key_data(jax.device_put(np.zeros(2, np.uint32))))
            self._streams.append(stream if stream in rngs else "default")
            return keys[-1]

        def note(key: jax.Array, wanted: _Wanted) -> jax.Array | None:
            number = _place(key, keys)
            if number is None:  # made of one of them
                return None
            self._wanted.append(wanted._replace(key=number))
            return jnp.zeros(wanted.shape, wanted.dtype)

        self.module: Module = nnx.eval_shape(lambda: _built(build, Keys(hand_out), note if self._together else None))

    def draw(self, rngs: nnx.Rngs) -> nnx.State:
        """Returns the values of the module, and counts the keys as taken from `rngs`; to be traced by `jax.jit`."""
        of_stream = {name: _next_keys(rngs[name], count) for name, count in Counter(self._streams).items()}
        keys = [next(of_stream[name]) for name in self._streams]
        following, arrays = iter(keys), _arrays(keys, self._wanted)

        def give(key: jax.Array, wanted: _Wanted) -> jax.Array | None:
            number = _place(key, keys)
            return None if number is None else arrays[wanted._replace(key=number)]

        handed = Keys(lambda _: next(following))
        return nnx.state(_built(self._build, handed, give if self._together else None))


def _built(build: Callable[[nnx.Rngs], Module], rngs: nnx.Rngs, give: _Giver | None) -> Module:
    token = _giver.set(give)
    try:
        return build(rngs)
    finally:
        _giver.reset(token)


def _place(key: jax.Array, keys: list[jax.Array]) -> int | None:
    # The newest first: a key is used as soon as it is there.
    return next((number for number in reversed(range(len(keys))) if keys[number] is key), None)


def _next_keys(stream: nnx.RngStream, count: int) -> Iterator[jax.Array]:
    """Returns what a stream would give the next times, as one program, and counts it."""
    counts = stream.count[...] + jnp.arange(count, dtype=jnp.uint32)
    stream.count[...] += jnp.uint32(count)
    return iter(jax.vmap(jax.random.fold_in, in_axes=(None, 0))(stream.key[...], counts))


def _arrays(keys: list[jax.Array], wanted: list[_Wanted]) -> dict[_Wanted, jax.Array]:
    """Returns the arrays; those of one kind are drawn by one loop."""
    kinds: dict[tuple[np.dtype, bool], list[_Wanted]] = {}
    for one in wanted:
        kinds.setdefault((one.dtype, one.bound is None), []).append(one)
    found = {}
    for members in kinds.values():
        counts = [-(-math.prod(one.shape) // _BLOCK) for one in members]
        blocks = _blocks(jnp.stack([keys[one.key] for one in members]), members, counts)
        for one, count, first in zip(members, counts, np.cumsum([0, *counts[:-1]]), strict=True):
            vector = blocks[first : first + count].reshape(count * _BLOCK)
            found[one] = vector[: math.prod(one.shape)].reshape(one.shape)
    return found


def _blocks(keys: jax.Array, members: list[_Wanted], counts: list[int]) -> jax.Array:
    """Returns the numbers of arrays of one kind, `[sum(counts), _BLOCK]`: so many blocks for each of them."""
    dtype, is_normal = members[0].dtype, members[0].bound is None
    number = np.repeat(np.arange(len(members)), counts)
    first = np.concatenate([np.arange(count, dtype=np.uint32) * np.uint32(_BLOCK) for count in counts])
    times = np.array([one.times for one in members], dtype)
    if is_normal:  # of the two factors that JAX writes XLA makes one, too
        bounds, times = np.ones(len(members), dtype), np.sqrt(np.array(2, dtype)) * times
    else:
        bounds = np.array([one.bound for one in members], dtype)

    def block(of: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        key, first, bound, times = of
        if not is_normal:
            return _uniform(key, first, dtype, -bound, bound) * times
        lowest = np.nextafter(np.array(-1, dtype), np.array(0, dtype))
        return jax.lax.erf_inv(_uniform(key, first, dtype, lowest, np.array(1, dtype))) * times

    return jax.lax.map(
        block, (jax.random.key_data(keys)[number], *map(jnp.asarray, (first, bounds[number], times[number])))
    )


def _uniform(key: jax.Array, first: jax.Array, dtype: np.dtype, low: Any, high: Any) -> jax.Array:
    """Returns what `jax.random.uniform(key, shape, dtype, low, high)` has from the place `first` on, `[_BLOCK]`."""
    place = first + jnp.arange(_BLOCK, dtype=jnp.uint32)
    upper, lower = threefry2x32_p.bind(key[0], key[1], jnp.zeros_like(place), place)
    if dtype.itemsize == 4:
        bits = upper ^ lower
    else:
        bits = (upper.astype(jnp.uint64) << np.uint64(32)) | lower.astype(jnp.uint64)
    about, one = jnp.finfo(dtype), np.array(1, dtype)
    mantissa = (bits >> np.array(about.bits - about.nmant, bits.dtype)) | one.view(bits.dtype)
    floats = jax.lax.bitcast_convert_type(mantissa, dtype) - one
    return jnp.maximum(low, floats * (high - low) + low)
