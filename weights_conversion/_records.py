"""Records what a network or a training run holds and gives, under torch's names, and says how far two records differ.

Every comparison with PyTorch uses it: `verify`, and those of the laboratory (`scripts/lab/parity`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

Arrays = dict[str, np.ndarray]
STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"
_ROUNDING = 1e-12


@dataclass
class Record:
    """The numbers of one side.

    Attributes:
      values: per kind (`losses`, `weights`, `statistics`, ...) the arrays, by torch's names.
      counters: per kind whole numbers by name; they are compared for equality.
    """

    values: dict[str, Arrays] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)


class Difference(NamedTuple):
    """How far two records differ in one kind.

    Attributes:
      kind: of the values.
      largest: the largest difference, relative to the largest value of its tensor; infinite where the names differ.
      where: the tensor it was found in, or what is wrong.
      compared: how many numbers were compared.
    """

    kind: str
    largest: float
    where: str
    compared: int


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Switches 64-bit types on for float64 alone, and reduced-precision products off, for what runs inside."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


def split_state(tensors: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays, dict[str, int]]:
    """Returns the weights, the BatchNorm statistics and the BatchNorm counters of a state dict."""
    counters = {name: int(array) for name, array in tensors.items() if name.endswith(COUNTER)}
    statistics = {name: array for name, array in tensors.items() if name.endswith(STATISTICS)}
    weights = {name: array for name, array in tensors.items() if name not in counters and name not in statistics}
    return weights, statistics, counters


def load_torch(model: Any, tensors: Mapping[str, np.ndarray], dtype: str) -> Any:
    """Returns a torch module in `dtype`, loaded with a state dict that fits to the last name."""
    import torch

    model = model.to(getattr(torch, dtype))  # first, or loading would round to float32
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}, strict=True)
    return model


def torch_array(tensor: Any) -> np.ndarray:
    """Returns a copy of a torch tensor; of bfloat16, which numpy lacks, as float64."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.double() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())


def torch_state(model: Any) -> Arrays:
    """Returns the state dict of a torch module."""
    return {name: torch_array(tensor) for name, tensor in model.state_dict().items()}


def torch_maps(model: Any, paths: Mapping[str, str]) -> Arrays:
    """Returns a dict into which each later forward pass writes the outputs of submodules, maps as NCHW.

    Args:
      model: a torch module.
      paths: by the name in the dict, the submodule.
    """
    maps: Arrays = {}
    for name, path in paths.items():
        model.get_submodule(path).register_forward_hook(
            lambda module, inputs, outputs, name=name: maps.update({name: torch_array(outputs)})
        )
    return maps


def differences(ours: Record, theirs: Record) -> list[Difference]:
    """Returns the largest difference of each kind; for counters 0 where all are equal, else infinity.

    Of `gradients`, one that is nothing but rounding (less than 1e-12 of the largest, such as that of a bias which the
    next BatchNorm removes) is held against the largest of all.
    """
    rows = []
    for kind in dict.fromkeys((*theirs.values, *ours.values)):
        rows.append(_difference(kind, ours.values.get(kind, {}), theirs.values.get(kind, {})))
    for kind in dict.fromkeys((*theirs.counters, *ours.counters)):
        mine, other = ours.counters.get(kind, {}), theirs.counters.get(kind, {})
        unequal = [name for name in {**other, **mine} if mine.get(name) != other.get(name)]
        where = f"{unequal[0]}: {mine.get(unequal[0])} and {other.get(unequal[0])}" if unequal else ""
        rows.append(Difference(kind, float("inf") if unequal else 0.0, where, len(other)))
    return rows


def _difference(kind: str, ours: Arrays, theirs: Arrays) -> Difference:
    if odd := sorted(set(ours) ^ set(theirs)):
        side = "only here" if odd[0] in ours else "only in PyTorch"
        return Difference(kind, float("inf"), f"{odd[0]} is {side}", 0)
    overall = max(map(_largest, theirs.values()), default=0.0) if kind == "gradients" else 0.0
    found = ((relative(ours[name], theirs[name], overall), name) for name in theirs)
    largest, where = max(found, default=(0.0, ""))
    return Difference(kind, largest, where, sum(np.size(array) for array in theirs.values()))


def relative(ours: np.ndarray, theirs: np.ndarray, overall: float = 0.0) -> float:
    """Returns the largest difference relative to the largest value; infinite for other shapes or what is not finite.

    Where that value is less than 1e-12 of `overall`, the difference is relative to the latter.
    """
    if np.shape(ours) != np.shape(theirs):
        return float("inf")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    scale = _largest(theirs)
    scale = overall if scale < _ROUNDING * overall else scale
    gap = _largest(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
    return gap / scale if scale else (0.0 if gap == 0 else float("inf"))


def without_rounding(gradients: Arrays) -> Arrays:
    """Returns gradients with zeros in place of those that are nothing but rounding (see `differences`)."""
    overall = max(map(_largest, gradients.values()))
    return {
        n: array if _largest(array) > _ROUNDING * overall else np.zeros_like(array) for n, array in gradients.items()
    }


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array)))
