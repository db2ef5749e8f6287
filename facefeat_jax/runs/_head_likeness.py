"""Whether a picture is like those that a head was trained on: the Mahalanobis distance of the trunk's pooled features.

After Lee, Lee, Lee and Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
Attacks", NeurIPS 2018, with one Gaussian per head. Its covariance is kept as a few directions and the mean variance of
all others, which bounds its size and shrinks what few pictures can't tell. How it is fitted: `evaluation._likeness`.
Imports no JAX: an exported model is run without.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.runs._about import LIKENESS
from facefeat_jax.system import checked_json, kinds
from facefeat_jax.system.errors import UserError

RANK = 16
"""Directions that are kept of a covariance, at most."""

_ARRAYS = ("mean", "basis", "variances")
_LARGEST = 1 << 24  # bytes of the file


@dataclass(frozen=True, eq=False)
class HeadLikeness:
    """The distribution of the features of a head's training pictures.

    Attributes:
      mean: `[features]`, float32.
      basis: `[rank, features]`, float32, orthonormal.
      variances: `[rank]`, float32, along the basis.
      rest: variance in every other direction.
      threshold: distance beyond which a picture is unlike the training pictures.
      withholds: whether the head answers `unsure` then; otherwise its answer stays, with a note.
      n: number of pictures that it was fitted on.
      notes: remarks for the reader.
    """

    mean: np.ndarray
    basis: np.ndarray
    variances: np.ndarray
    rest: float
    threshold: float
    withholds: bool = False
    n: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, features: np.ndarray) -> HeadLikeness:
        """Fits the distribution to features `[n, features]`; the threshold is still infinite."""
        values = _scaled(features)
        mean = values.mean(axis=0)
        offset, (n, width) = values - mean, values.shape
        # Of the covariance, whose size does not grow with the number of pictures; eigh sorts upwards.
        variances, directions = np.linalg.eigh(offset.T @ offset / n)
        variances, directions = np.maximum(variances[::-1], 0), directions.T[::-1]
        rank = max(1, min(RANK, n // 4, width - 1))
        rest = max(float(variances[rank:].sum()) / (width - rank), 1e-12)
        kept = np.maximum(variances[:rank], rest)
        return cls(
            mean=mean.astype(np.float32),
            basis=directions[:rank].astype(np.float32),
            variances=kept.astype(np.float32),
            rest=rest,
            threshold=float("inf"),
            n=n,
        )

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Returns the squared Mahalanobis distance `[n]`, float64, of features `[n, features]`."""
        offset = _scaled(features) - self.mean
        along = offset @ self.basis.T.astype(np.float64)
        beside = np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return (along**2 / self.variances).sum(axis=1) + beside / self.rest

    def unlike(self, features: np.ndarray) -> np.ndarray:
        """Returns which pictures are unlike the training pictures, bool `[n]`."""
        return self.distance(features) > self.threshold


def _scaled(features: np.ndarray) -> np.ndarray:
    """Returns the square roots of the features (with their sign), scaled to length 1: float64 of the same shape.

    The length of the features says how strongly a network reacts, which contrast and size change as well.
    """
    roots = np.sign(features) * np.sqrt(np.abs(np.asarray(features, np.float64)))
    return roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Likeness:
    """Those of a run's checkpoint: `likeness/STEP.json` in its folder.

    Attributes:
      step: step of the checkpoint.
      drawn: whether all training pictures were drawn.
      heads: by task.
    """

    step: int
    drawn: bool
    heads: dict[str, HeadLikeness]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values; arrays are the base64 of their bytes, little-endian."""
        return {"step": self.step, "drawn": self.drawn, "heads": {t: _to_json(h) for t, h in self.heads.items()}}

    @classmethod
    def from_json(cls, content: Any, *, tasks: Collection[str]) -> Likeness:
        """Reads what `to_json` wrote.

        Raises:
          ValueError: it is not that, or of other heads.
        """
        if not isinstance(content, dict) or content.keys() != {"step", "drawn", "heads"}:
            raise ValueError("it is no description of training pictures")
        if kinds.fault(content["step"], int) or kinds.fault(content["drawn"], bool):
            raise ValueError("step or drawn has another type")
        heads = content["heads"]
        if not isinstance(heads, dict) or not heads.keys() <= set(tasks):
            raise ValueError("it is of heads that the model does not have")
        return cls(content["step"], content["drawn"], {task: _from_json(head) for task, head in heads.items()})

    def write(self, run: Path) -> Path:
        """Writes it into a run folder, in place of what was there of the same checkpoint; returns the file."""
        from facefeat_jax.runs.run_folder import write_json  # here: it imports JAX

        return write_json(_path(run, self.step), checked_json.with_digest(self.to_json()))

    @classmethod
    def read(cls, run: Path, *, step: int, tasks: Collection[str]) -> Likeness | None:
        """Reads that of a run's checkpoint; None where there is none, as in runs of earlier versions.

        Raises:
          UserError: the file can't be read, is not what was written, or is of other heads.
        """
        path = _path(run, step)
        if not path.exists():
            return None
        try:
            content = checked_json.read_checked(path, most_bytes=_LARGEST)
            if not content.is_checked:
                raise ValueError("it has no digest")
            found = cls.from_json(content.content, tasks=tasks)
            if found.step != step:
                raise ValueError(f"it belongs to step {found.step}")
        except (OSError, ValueError) as error:
            advice = f"delete it, or write it again with facefeat evaluate {run}"
            raise UserError(f"{path} can't be read ({error}); {advice}") from error
        return found


def _path(run: Path, step: int) -> Path:
    return run / LIKENESS / f"{step}.json"


def _to_json(head: HeadLikeness) -> dict[str, Any]:
    values = {field.name: getattr(head, field.name) for field in dataclasses.fields(head)}
    for name in _ARRAYS:
        values[name] = base64.b64encode(values[name].astype("<f4").tobytes()).decode()
    return {**values, "notes": list(head.notes)}


def _from_json(values: Any) -> HeadLikeness:
    wanted = {"rest": float, "threshold": float, "withholds": bool, "n": int, "notes": tuple[str, ...]}
    if not isinstance(values, dict) or values.keys() != {*wanted, *_ARRAYS}:
        raise ValueError("the entry of a head has other members")
    if wrong := [name for name, kind in wanted.items() if kinds.fault(values[name], kind)]:
        raise ValueError(f"{wrong[0]} has another type")
    arrays = {}
    for name in _ARRAYS:
        if not isinstance(values[name], str):
            raise ValueError(f"{name} is no text")
        arrays[name] = np.frombuffer(base64.b64decode(values[name], validate=True), "<f4")
    width, rank = len(arrays["mean"]), len(arrays["variances"])
    if not (rank and width and len(arrays["basis"]) == rank * width):
        raise ValueError("its arrays don't fit each other")
    arrays["basis"] = arrays["basis"].reshape(rank, width)
    numbers = [*arrays.values(), np.array([values["rest"], values["threshold"]])]
    if not all(np.isfinite(array).all() for array in numbers) or min(arrays["variances"].min(), values["rest"]) <= 0:
        raise ValueError("a number in it is not finite, or a variance not positive")
    return HeadLikeness(**{**values, **arrays, "notes": tuple(values["notes"])})
