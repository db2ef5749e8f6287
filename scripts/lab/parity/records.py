"""What a run leaves behind, under torch's names, and how far two of them are apart."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
NUM_ENTRIES = 64


@dataclass
class Record:
    """The numbers of one side.

    Attributes:
      values: per kind (`losses`, `weights`, `statistics`, ...) the arrays by torch's names and in torch's axis order.
      counters: per kind whole numbers by name; they are compared for equality.
    """

    values: dict[str, Arrays] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)


class Difference(NamedTuple):
    """How far two records are apart in one kind.

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


def differences(ours: Record, theirs: Record) -> list[Difference]:
    """Returns the largest difference of each kind; for counters 0 where all are equal, else infinity."""
    rows = [_difference(kind, ours.values.get(kind, {}), theirs.values.get(kind, {})) for kind in _kinds(ours, theirs)]
    for kind in dict.fromkeys((*theirs.counters, *ours.counters)):
        mine, other = ours.counters.get(kind, {}), theirs.counters.get(kind, {})
        unequal = [name for name in {**other, **mine} if mine.get(name) != other.get(name)]
        where = f"{unequal[0]}: {mine.get(unequal[0])} and {other.get(unequal[0])}" if unequal else ""
        rows.append(Difference(kind, float("inf") if unequal else 0.0, where, len(other)))
    return rows


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest difference relative to the largest value; infinite for other shapes or what is not finite."""
    if np.shape(ours) != np.shape(theirs):
        return float("inf")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    scale = float(np.max(np.abs(theirs)))
    gap = float(np.max(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))))
    return gap / scale if scale else (0.0 if gap == 0 else float("inf"))


def summary(arrays: Arrays) -> Arrays:
    """Returns `{name: [sum, sum of squares, up to 64 fixed entries]}`: what a golden file keeps of a tensor.

    Which entries is a function of the tensor's name and size.
    """
    return {name: _summarised(name, np.asarray(array, np.float64).ravel()) for name, array in arrays.items()}


def summary_difference(ours: np.ndarray, theirs: np.ndarray, size: int) -> float:
    """Returns how far two summaries of a tensor of that size are apart, relative to what each figure is made of.

    A sum is held against the largest it could be for its sum of squares: terms of both signs may cancel.
    """
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    gaps = np.abs(ours - theirs)
    rms = float(np.sqrt(theirs[1] / size))
    if rms == 0:
        return 0.0 if gaps.max() == 0 else float("inf")
    largest_entry = max(rms, float(np.max(np.abs(theirs[2:]))))
    return max(gaps[0] / (rms * size), gaps[1] / theirs[1], float(np.max(gaps[2:])) / largest_entry)


def _kinds(ours: Record, theirs: Record) -> list[str]:
    return list(dict.fromkeys((*theirs.values, *ours.values)))


def _difference(kind: str, ours: Arrays, theirs: Arrays) -> Difference:
    if odd := sorted(set(ours) ^ set(theirs)):
        side = "only here" if odd[0] in ours else "only in PyTorch"
        return Difference(kind, float("inf"), f"{odd[0]} is {side}", 0)
    largest, where = max(((relative(ours[name], theirs[name]), name) for name in theirs), default=(0.0, ""))
    return Difference(kind, largest, where, sum(np.size(array) for array in theirs.values()))


def _summarised(name: str, flat: np.ndarray) -> np.ndarray:
    chosen = np.random.RandomState(zlib.crc32(name.encode())).permutation(flat.size)[:NUM_ENTRIES]
    return np.concatenate([[flat.sum(), np.square(flat).sum()], flat[np.sort(chosen)]])
