"""Calibration: probabilities that are frequencies, and a threshold below which a head says that it is unsure.

One temperature per head divides its logits (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017): it changes no answer. Temperature and threshold are fitted on one part of the validation
pictures, and what they are worth is measured on the other (`fitting_part`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from facefeat_jax.errors import UserError
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.run_folder import CALIBRATION, write_json

NUM_BINS = 15
"""Of equal width, as in the paper above."""

ERROR_RATE = 0.05
"""Share of wrong answers that a head may give, unless told otherwise; where it can't keep to it, it is unsure."""

CONFIDENCE = 0.95
"""How sure a threshold's error rate has to be, by the upper end of a binomial share."""

LEAST = 20
"""Pictures that it takes to fit a temperature."""

_FORMAT = 1
_LIMITS = (0.1, 10.0)  # of temperatures: beyond them the loss is flat, and the fit follows single pictures


@dataclass(frozen=True)
class HeadCalibration:
    """How the answers of one head are to be read.

    Attributes:
      temperature: what its logits are divided by.
      threshold: the least probability, after that, of an answer; below it the head is unsure. None: there is none.
      error_rate: the share of wrong answers that the threshold was chosen for.
      n: pictures that both were fitted on.
      never_sure: whether no threshold keeps to the error rate: then the head is always unsure.
      notes: what has to be known of them.
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


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run: `calibration.json` in its folder.

    Attributes:
      step: of the checkpoint that it belongs to.
      heads: by task.
    """

    step: int
    heads: dict[str, HeadCalibration]

    @property
    def temperatures(self) -> dict[str, float]:
        """By head."""
        return {task: head.temperature for task, head in self.heads.items()}

    def write(self, run: Path) -> Path:
        """Writes it into a run folder."""
        heads = {task: dataclasses.asdict(head) for task, head in self.heads.items()}
        return write_json(run / CALIBRATION, {"format": _FORMAT, "step": self.step, "heads": heads})

    @classmethod
    def read(cls, run: Path, *, step: int) -> Calibration | None:
        """Reads that of a run's checkpoint; None where there is none, or it belongs to another step.

        Raises:
          UserError: the file can't be read.
        """
        path = run / CALIBRATION
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != _FORMAT:
                raise ValueError(f"format {values['format']}, this version reads {_FORMAT}")
            heads = {task: _head(head) for task, head in values["heads"].items()}
            found = cls(int(values["step"]), heads)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} can't be read ({error}); delete it, or make it again with facefeat evaluate {run}"
            ) from error
        return found if found.step == step else None


def heads_to_json(heads: Mapping[str, HeadCalibration]) -> dict[str, Any]:
    """Returns the calibration of heads as JSON values."""
    return {task: {**dataclasses.asdict(head), "notes": list(head.notes)} for task, head in heads.items()}


def heads_from_json(values: Any) -> dict[str, HeadCalibration]:
    """Reads what `heads_to_json` wrote.

    Raises:
      ValueError: a field is missing or unknown, or is none that a calibration can have.
    """
    if not isinstance(values, dict):
        raise ValueError("the calibration is no object")
    return {task: _head(head) for task, head in values.items()}


def _head(values: Any) -> HeadCalibration:
    fields = {field.name for field in dataclasses.fields(HeadCalibration)}
    if not isinstance(values, dict) or values.keys() != fields:
        raise ValueError(f"the calibration of a head has other fields than {', '.join(sorted(fields))}")
    if not _is_within(values["temperature"], 1e-3, 1e3):
        raise ValueError(f"a temperature of {values['temperature']!r:.40}")
    for name in ("threshold", "error_rate"):
        if not (name == "threshold" and values[name] is None) and not _is_within(values[name], 0, 1):
            raise ValueError(f"{name} is {values[name]!r:.40}, which is no share")
    if type(values["n"]) is not int or values["n"] < 0 or type(values["never_sure"]) is not bool:
        raise ValueError("the calibration of a head counts no pictures")
    if not isinstance(values["notes"], list) or not all(isinstance(note, str) for note in values["notes"]):
        raise ValueError("the notes of a calibration are no list of texts")
    return HeadCalibration(**{**values, "notes": tuple(values["notes"])})


def _is_within(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def fitting_part(units: np.ndarray) -> np.ndarray:
    """Returns which pictures are fitted on, bool `[n]`; the others are reported on.

    It is half of the units, by a hash of each: the same pictures in every run, and no person is in both parts.
    """
    names, unit_of = np.unique(units, return_inverse=True)
    is_fitted = np.array([hashlib.sha256(name.encode()).digest()[0] < 128 for name in names.tolist()], bool)
    return is_fitted[unit_of]


def calibrate(answers: Answers, *, step: int, error_rate: float = ERROR_RATE) -> Calibration:
    """Fits temperature and threshold of every head on the fitting part of the answers.

    Args:
      answers: of the validation pictures, as the model gives them.
      step: of the checkpoint that gave them.
      error_rate: the share of wrong answers that is wanted at most.

    Raises:
      UserError: the error rate is not above 0 and at most 1.
    """
    if not 0 < error_rate <= 1:
        raise UserError(f"--error-rate is a share of answers, more than 0 and at most 1, got {error_rate}")
    fitted = answers.select(fitting_part(answers.units))
    heads = {task: calibrate_head(*fitted.labelled(task), error_rate=error_rate) for task in answers.classes}
    return Calibration(step, heads)


def calibrate_head(logits: np.ndarray, labels: np.ndarray, *, error_rate: float = ERROR_RATE) -> HeadCalibration:
    """Fits the temperature of a head, then its threshold, on logits `[n, outputs]` and labels `[n]`."""
    if len(labels) < LEAST:
        return HeadCalibration(
            error_rate=error_rate,
            n=len(labels),
            notes=(f"not calibrated: {len(labels)} labelled pictures to fit on, it takes {LEAST}",),
        )
    notes = []
    right = predicted(logits) == labels
    if right.all():
        temperature = 1.0
        notes.append("no mistake on the pictures to fit on: nothing shows how far its probabilities can be believed")
    else:
        temperature = fit_temperature(logits, labels)
        if temperature in _LIMITS:
            notes.append(f"the temperature stands at its limit, {temperature:g}")
    confidence = probabilities(logits / temperature).max(axis=1)
    threshold = choose_threshold(confidence, right, error_rate)
    needed = least_pictures(error_rate)
    if threshold is None and len(labels) < needed:
        notes.append(
            f"no threshold: {len(labels)} pictures are too few to be sure of {error_rate:.1%} wrong answers, "
            f"it takes {needed}"
        )
    elif threshold is None:
        notes.append(
            f"always unsure: no threshold is sure to keep to {error_rate:.1%} wrong answers; a larger --error-rate "
            "gets answers"
        )
    never_sure = threshold is None and len(labels) >= needed
    return HeadCalibration(temperature, threshold, error_rate, len(labels), never_sure, tuple(notes))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the least mean cross-entropy, between 0.1 and 10."""
    low, high = np.log(_LIMITS)
    found = minimize_scalar(
        lambda log: float(losses(logits / math.exp(log), labels).mean()),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    at = float(found.x)
    for limit, value in zip((low, high), _LIMITS, strict=True):
        if abs(at - limit) < 1e-3:
            return value
    return math.exp(at)


def choose_threshold(confidence: np.ndarray, right: np.ndarray, error_rate: float) -> float | None:
    """Returns the threshold that lets most answers through while their error rate stays below what is wanted.

    That is: the upper end of the share of wrong answers (Clopper and Pearson, one-sided, `CONFIDENCE`) is at most
    `error_rate`. It is the bound of one threshold; that several were looked at is not corrected for, so what it is
    worth is measured on other pictures.

    Args:
      confidence: `[n]`, the probability of each answer.
      right: `[n]`, bool.
      error_rate: wanted at most.

    Returns:
      The threshold, 0 where all answers may stand, or None where there is none.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    wrong = np.cumsum(~right[order])
    passed = np.arange(1, len(order) + 1)
    bound = beta.ppf(CONFIDENCE, wrong + 1, passed - wrong)
    bound = np.where(wrong == passed, 1.0, bound)
    # A threshold can't part answers of the same probability.
    ends = np.append(np.diff(ordered) < 0, True)
    kept = np.flatnonzero((bound <= error_rate) & ends)
    if not len(kept):
        return None
    return 0.0 if kept[-1] == len(order) - 1 else float(ordered[kept[-1]])


def least_pictures(error_rate: float) -> int:
    """Returns how many answers, all of them right, it takes to be sure of an error rate."""
    return 1 if error_rate >= 1 else math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-error_rate))


def confidence_bins(probability: np.ndarray) -> np.ndarray:
    """Returns the bin `[n]`, from 0, of the probability of each answer; `probability` is `[n, classes]`."""
    confidence = probability.max(axis=1)
    return np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def calibration_error(probability: np.ndarray, labels: np.ndarray) -> float:
    """Returns the expected calibration error: mean over bins of |confidence - accuracy|, weighted by their pictures.

    Over `NUM_BINS` bins of equal width of the answer's probability: Naeini, Cooper and Hauskrecht, "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning", AAAI 2015, in the form of the paper above. With few pictures even
    perfect probabilities have an error above 0.

    Args:
      probability: `[n, classes]`.
      labels: `[n]`, class numbers.
    """
    gap = probability.max(axis=1) - (probability.argmax(axis=1) == labels)
    return float(np.abs(np.bincount(confidence_bins(probability), gap)).sum() / len(labels))


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies between `low` and `high`.

    Attributes:
      low: exclusive.
      high: inclusive.
      n: number of pictures.
      confidence: mean probability of the answers.
      accuracy: share that is right.
      interval: 95% interval of that share, exact (Clopper and Pearson).
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def reliability(probability: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Returns the bins that hold a picture, for a reliability diagram; arguments as for `calibration_error`."""
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == labels
    bins = confidence_bins(probability)
    found = []
    for number in np.unique(bins):
        chosen = bins == number
        n, hits = int(chosen.sum()), int(right[chosen].sum())
        low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
        high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
        edges = number / NUM_BINS, (number + 1) / NUM_BINS
        found.append(Bin(*edges, n, float(confidence[chosen].mean()), hits / n, (low, high)))
    return found


@dataclass(frozen=True)
class Coverage:
    """What a threshold leaves.

    Attributes:
      threshold: least probability of an answer.
      coverage: share of pictures that get an answer.
      accuracy: share of the answers that is right.
    """

    threshold: float
    coverage: float
    accuracy: float


def coverage_curve(confidence: np.ndarray, right: np.ndarray, *, points: int = 100) -> list[Coverage]:
    """Returns the accuracy of the answers as fewer and fewer pictures get one.

    Args:
      confidence: `[n]`, the probability of each answer.
      right: `[n]`, bool.
      points: at most this many, spread over the coverage; fewer where probabilities are equal.

    Returns:
      By rising coverage; the last has all pictures.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, hits = confidence[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(np.diff(ordered) < 0, True))
    wanted = np.linspace(0, len(order) - 1, min(points, len(order)))
    chosen = np.unique(ends[np.searchsorted(ends, wanted.astype(int))])
    return [
        Coverage(float(ordered[end]), (end + 1) / len(order), float(hits[end] / (end + 1))) for end in chosen.tolist()
    ]
