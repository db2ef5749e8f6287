"""Calibration: probabilities that match frequencies, and a threshold below which a head answers `unsure`.

One temperature per head divides its logits (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017): it changes no answer. Temperature and threshold are fitted on one part of the validation
pictures, and what they are worth is measured on the other (`fitting_part`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.runs._about import CALIBRATION
from facefeat_jax.runs._head_calibration import ERROR_RATE as ERROR_RATE
from facefeat_jax.runs._head_calibration import LIMITS, HeadCalibration, heads_from_json, heads_to_json
from facefeat_jax.runs.run_folder import OLD_CALIBRATION, write_json
from facefeat_jax.system import checked_json, kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.text import format_distinct, format_given

CONFIDENCE = 0.95
"""How sure a threshold's error rate has to be, by the upper end of a binomial share."""

LEAST = 20
"""Pictures that it takes to fit a temperature."""

_FOLDS = 10


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run's checkpoint: `calibration/STEP.json` in its folder.

    Attributes:
      step: step of the checkpoint that it belongs to.
      heads: by task.
    """

    step: int
    heads: dict[str, HeadCalibration]

    @property
    def temperatures(self) -> dict[str, float]:
        """By head."""
        return {task: head.temperature for task, head in self.heads.items()}

    def write(self, run: Path) -> Path:
        """Writes it into a run folder, in place of what was there of the same checkpoint; returns the file."""
        content = {"step": self.step, "heads": heads_to_json(self.heads)}
        return write_json(_path(run, self.step), checked_json.with_digest(content))

    @classmethod
    def read(cls, run: Path, *, step: int, tasks: Collection[str] | None = None) -> Calibration | None:
        """Reads the calibration of a run's checkpoint; None where there is none.

        Args:
          run: the run folder.
          step: step of the checkpoint.
          tasks: the model's heads.

        Raises:
          UserError: the file can't be read, is not what was written, or is of other heads.
        """
        # An earlier version kept a file for the whole run; `open_run` reports that such files can't be checked.
        path = next((path for path in (_path(run, step), run / OLD_CALIBRATION) if path.exists()), None)
        if path is None:
            return None
        try:
            content = checked_json.read_checked(path).content
            if content.keys() != {"step", "heads"} or kinds.fault(content["step"], int):
                raise ValueError("it is not a calibration")
            found = cls(content["step"], heads_from_json(content["heads"]))
            if path.name != OLD_CALIBRATION and found.step != step:
                raise ValueError(f"it belongs to step {found.step}")
            if tasks is not None and (others := found.heads.keys() - set(tasks)):
                raise ValueError(f"it has a head {min(others)!r:.40}, which the model does not have")
        except (OSError, ValueError) as error:
            advice = f"delete it, or write it again with facefeat evaluate {run}"
            raise UserError(f"{path} can't be read ({error}); {advice}") from error
        return found if found.step == step else None


def _path(run: Path, step: int) -> Path:
    return run / CALIBRATION / f"{step}.json"


def fitting_part(units: np.ndarray) -> np.ndarray:
    """Returns which pictures are fitted on, bool `[n]`; the others are reported on.

    They are half of the units, by a hash of each: the same pictures in every run, and no person is in both parts.
    """
    names, unit_of = np.unique(units, return_inverse=True)
    is_fitted = np.array([hashlib.sha256(name.encode()).digest()[0] < 128 for name in names.tolist()], bool)
    return is_fitted[unit_of]


def calibrate(answers: Answers, *, step: int, error_rate: float = ERROR_RATE) -> Calibration:
    """Fits temperature and threshold of every head on the fitting part of the answers.

    Args:
      answers: uncalibrated answers on the validation pictures.
      step: step of the checkpoint.
      error_rate: the share of wrong answers that is wanted at most.

    Raises:
      UserError: the error rate is not above 0 and at most 1.
    """
    if not 0 < error_rate <= 1:
        raise UserError(f"--error-rate must be more than 0 and at most 1, got {error_rate}")
    fitted = answers.select(fitting_part(answers.units))
    heads = {}
    for task in answers.classes:
        units = fitted.units[fitted.labels[task] >= 0]
        heads[task] = calibrate_head(*fitted.labelled(task), units=units, error_rate=error_rate)
    return Calibration(step, heads)


def calibrate_head(
    logits: np.ndarray, labels: np.ndarray, *, units: np.ndarray | None = None, error_rate: float = ERROR_RATE
) -> HeadCalibration:
    """Fits the temperature of a head, then its threshold.

    Args:
      logits: `[n, outputs]`.
      labels: `[n]`.
      units: `[n]`, the name of what each picture belongs to (a person); the default is a unit for each picture.
      error_rate: the share of wrong answers that is wanted at most.
    """
    if len(labels) < LEAST:
        why = f"not calibrated: {len(labels)} labelled pictures to fit on, but {LEAST} are needed"
        return HeadCalibration(error_rate=error_rate, n=len(labels), notes=(why,))
    notes = []
    right = predicted(logits) == labels
    if right.all():
        temperature = 1.0
        notes.append("no mistake on the pictures to fit on, so it is not known how reliable its probabilities are")
    else:
        temperature = fit_temperature(logits, labels)
        before, after = float(losses(logits, labels).mean()), cross_fitted_loss(logits, labels, units)
        if after >= before:
            temperature = 1.0
            texts = " to ".join(format_distinct(before, after))
            notes.append(
                f"no temperature: fitted on nine tenths of the pictures at a time, it changed the loss on the others "
                f"from {texts}"
            )
        elif temperature in LIMITS:
            notes.append(f"the temperature is at its limit, {temperature:g}")
    confidence = probabilities(logits / temperature).max(axis=1)
    threshold = choose_threshold(confidence, right, error_rate)
    needed = least_pictures(error_rate)
    if threshold is None and len(labels) < needed:
        notes.append(
            f"no threshold: {len(labels)} pictures are too few to guarantee {format_given(error_rate)} wrong answers; "
            f"{needed} are needed"
        )
    elif threshold is None:
        notes.append(
            f"always unsure: no threshold guarantees at most {format_given(error_rate)} wrong answers; try a larger "
            "--error-rate"
        )
    never_sure = threshold is None and len(labels) >= needed
    return HeadCalibration(temperature, threshold, error_rate, len(labels), never_sure, tuple(notes))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the least mean cross-entropy, between 0.1 and 10."""
    low, high = np.log(LIMITS)
    found = minimize_scalar(
        lambda log: float(losses(logits / math.exp(log), labels).mean()),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    at = float(found.x)
    for limit, value in zip((low, high), LIMITS, strict=True):
        if abs(at - limit) < 1e-3:
            return value
    return math.exp(at)


def cross_fitted_loss(logits: np.ndarray, labels: np.ndarray, units: np.ndarray | None = None) -> float:
    """Returns the mean loss where each picture's temperature is fitted without it: what a temperature is worth.

    In ten parts, each of which has whole units; arguments as for `calibrate_head`.
    """
    names, unit_of = np.unique(np.arange(len(labels)) if units is None else units, return_inverse=True)
    folds = np.array([hashlib.sha256(str(name).encode()).digest()[1] % _FOLDS for name in names.tolist()])[unit_of]
    total = 0.0
    for fold in np.unique(folds):
        others, held_out = folds != fold, folds == fold
        right = predicted(logits[others]) == labels[others]
        temperature = 1.0 if right.all() else fit_temperature(logits[others], labels[others])
        total += float(losses(logits[held_out] / temperature, labels[held_out]).sum())
    return total / len(labels)


def choose_threshold(confidence: np.ndarray, right: np.ndarray, error_rate: float) -> float | None:
    """Returns the threshold that gives the most answers with an error rate of at most `error_rate`.

    That is: the upper end of the share of wrong answers (Clopper and Pearson, one-sided, `CONFIDENCE`) is at most
    `error_rate`. The bound is not corrected for the number of thresholds that were looked at, so its worth is measured
    on other pictures.

    Args:
      confidence: `[n]`, the probability of each answer.
      right: `[n]`, bool.
      error_rate: wanted at most.

    Returns:
      The threshold, halfway between the probabilities of two answers, so that rounding in another runtime moves neither
      across it; 0 where all answers may stand, or None where there is none.
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
    last = kept[-1]
    if last == len(order) - 1:
        return 0.0
    middle = (ordered[last] + ordered[last + 1]) / 2
    return float(middle if middle > ordered[last + 1] else ordered[last])  # of neighbouring numbers it may be the lower


def least_pictures(error_rate: float) -> int:
    """Returns the number of answers, all of them right, that are needed to guarantee an error rate."""
    return 1 if error_rate >= 1 else math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-error_rate))
