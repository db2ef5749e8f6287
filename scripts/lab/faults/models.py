"""Weights that read well and are still not to be used: other shapes, NaN, other types, other bytes than were published.

python -m faults.models WORK FIRST LAST SEED      # what the campaign starts: one line of JSON per file
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from faults import cases

State = dict[str, np.ndarray]
Random = np.random.RandomState


def main(work: Path, first: int, last: int, seed: int) -> None:
    """Tries the files from `first` to `last` and prints a line of JSON for each."""
    from flax import nnx

    from facefeat_jax import create_model
    from facefeat_jax.exporting.conversion import convert
    from facefeat_jax.system.errors import UserError
    from weights_conversion import to_torch, write

    state = to_torch(create_model("resnet18", tasks=["gender", "glasses", "shirt"], rngs=nnx.Rngs(0)))
    kinds = [*_SPOILED, "other bytes than were published"]
    path, made = work / "model.safetensors", work / "made"

    def attempt(kind: str, random: Random) -> str:
        try:
            if kind in _SPOILED:
                spoiled = dict(state)
                _SPOILED[kind](spoiled, random)
                write(path, spoiled)
                convert(path, made)
            else:
                _fetch_spoiled(work, random)
        except UserError as error:
            if "\n" in str(error):
                return f"the reason is {str(error)!r}"
            return "something was written" if made.exists() or any(work.glob(".made*")) else ""
        return "was taken"

    def prepare(number: int) -> tuple[str, Callable[[], str]]:
        kind = kinds[number % len(kinds)]
        return f"model: {kind}", lambda: attempt(kind, Random([seed, 11, number]))

    cases.each(first, last, prepare)


def _some(state: State, random: Random, *, ndim: int = 0) -> str:
    names = [name for name, array in state.items() if array.ndim >= max(1, ndim) and array.dtype.kind == "f"]
    return names[random.randint(len(names))]


def _one_number(value: float) -> Callable[[State, Random], None]:
    def spoil(state: State, random: Random) -> None:
        name = _some(state, random)
        state[name] = state[name].copy()
        state[name].reshape(-1)[random.randint(state[name].size)] = value

    return spoil


def _as_type(kind: type) -> Callable[[State, Random], None]:
    def spoil(state: State, random: Random) -> None:
        name = _some(state, random)
        state[name] = state[name].astype(kind)

    return spoil


def _lose(state: State, random: Random) -> None:
    del state[_some(state, random)]


def _rename(state: State, random: Random) -> None:
    name = _some(state, random)
    state[f"module.{name}"] = state.pop(name)


def _add(state: State, random: Random) -> None:
    state["backbone.layer9.0.conv1.weight"] = np.zeros(3, np.float32)


def _cut(state: State, random: Random) -> None:
    name = _some(state, random)
    state[name] = state[name][:-1]


def _other_shape(state: State, random: Random) -> None:
    name = _some(state, random, ndim=2)
    state[name] = state[name].reshape(-1, 1)


def _huge(state: State, random: Random) -> None:
    name = _some(state, random)
    state[name] = np.full(state[name].shape, 1e300)


_SPOILED: dict[str, Callable[[State, Random], None]] = {
    "NaN": _one_number(np.nan),
    "infinity": _one_number(-np.inf),
    "beyond float32": _huge,
    "complex numbers": _as_type(np.complex64),
    "quantised": _as_type(np.int8),
    "a tensor lost": _lose,
    "a tensor renamed": _rename,
    "a tensor added": _add,
    "a tensor cut": _cut,
    "another shape": _other_shape,
}


def _fetch_spoiled(work: Path, random: Random) -> None:
    """Fetches published weights from a mirror that gives other bytes, of the right length or cut."""
    from facefeat_jax.models.published import WEIGHTS
    from weights_conversion import fetch

    names = sorted(WEIGHTS, key=lambda name: WEIGHTS[name].mebibytes)
    entry = WEIGHTS[names[0]]
    mirror, cache = work / "mirror", work / "fetched"
    mirror.mkdir(exist_ok=True)
    length = entry.size or round(entry.mebibytes * 2**20)
    (mirror / entry.file).write_bytes(bytes(length if random.randint(2) else int(random.randint(length))))
    try:
        fetch(entry.name, cache_dir=cache, mirror=mirror.as_uri(), progress=False, backoff=0.001)
    finally:
        if (cache / entry.file).exists():
            raise AssertionError("the cache holds the wrong file")


if __name__ == "__main__":
    cases.call(main)
