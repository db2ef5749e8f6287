"""The calibration of a head, and its JSON. Imports no JAX: an exported model is run without."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from facefeat_jax.system import kinds

ERROR_RATE = 0.05
"""Default largest fraction of wrong answers; where a head can't guarantee it, it is unsure."""

LIMITS = (0.1, 10.0)
"""Of temperatures: beyond them the loss is flat, and the fit follows single pictures."""


@dataclass(frozen=True)
class HeadCalibration:
    """The calibration of one head.

    Attributes:
      temperature: divisor of the head's logits.
      threshold: an answer needs at least this calibrated probability; below it the head is unsure. None: no threshold.
      error_rate: fraction of wrong answers that the threshold was chosen for.
      n: number of pictures that both were fitted on.
      never_sure: whether no threshold guarantees the error rate, so that the head is always unsure.
      notes: remarks for the reader.
    """

    temperature: float = 1.0
    threshold: float | None = None
    error_rate: float = ERROR_RATE
    n: int = 0
    never_sure: bool = False
    notes: tuple[str, ...] = ()

    def unsure(self, probability: np.ndarray | float) -> np.ndarray:
        """Returns whether answers of that (calibrated) probability are none, bool of the same shape."""
        if self.never_sure:
            return np.ones_like(probability, bool)
        return np.asarray(probability) < (self.threshold or 0.0)


def heads_to_json(heads: Mapping[str, HeadCalibration]) -> dict[str, Any]:
    """Returns the calibration of heads as JSON values."""
    return {task: {**dataclasses.asdict(head), "notes": list(head.notes)} for task, head in heads.items()}


def heads_from_json(values: Any) -> dict[str, HeadCalibration]:
    """Reads what `heads_to_json` wrote.

    Raises:
      ValueError: a field is missing or unknown, or its value is invalid.
    """
    if not isinstance(values, dict):
        raise ValueError("the calibration is not an object")
    return {task: _head(task, head) for task, head in values.items()}


def _head(task: str, values: Any) -> HeadCalibration:
    fields = get_type_hints(HeadCalibration)
    if not isinstance(values, dict) or values.keys() != fields.keys():
        raise ValueError(f"the entry of the {task} head is not a calibration")
    for name, kind in fields.items():
        if wanted := kinds.fault(values[name], kind):
            raise ValueError(f"{name} of {task} should be {wanted}, is {values[name]!r:.40}")
    head = HeadCalibration(**{**values, "notes": tuple(values["notes"])})
    (low, high), threshold = LIMITS, 0.0 if head.threshold is None else head.threshold
    if not (low <= head.temperature <= high and 0 <= threshold <= 1 and 0 < head.error_rate <= 1 and head.n >= 0):
        raise ValueError(f"the entry of the {task} head has an invalid value, among {values!r:.120}")
    return head
