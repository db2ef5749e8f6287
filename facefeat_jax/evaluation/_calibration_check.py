"""The effect of a calibration on pictures that it was not fitted on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from facefeat_jax.evaluation._bootstrap import Interval, mean_interval, resampled_shares, share_interval
from facefeat_jax.evaluation._reliability import Bin, Coverage, coverage_curve, reliability
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import HeadCalibration
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.evaluation.scores import HeadScores, head_scores
from facefeat_jax.system.text import format_distinct


@dataclass(frozen=True)
class CalibrationCheck:
    """The effect of a head's calibration on pictures that it was not fitted on."""

    fitted: HeadCalibration  # temperature and threshold
    before: HeadScores  # metrics before calibration
    after: HeadScores  # metrics with the temperature
    bins_before: list[Bin]  # bins of the reliability diagram before calibration
    bins_after: list[Bin]  # the same with the temperature
    curve: list[Coverage]  # accuracy of the answers by the share of pictures that are answered
    coverage: float | None  # the share that is answered; None where all are
    accuracy: float | None  # accuracy of those answers; None where there are none
    interval: Interval | None  # its 95% interval
    loss_change: float  # change of the mean loss by the temperature; 0 without a temperature
    loss_change_interval: Interval | None  # its 95% interval; None without a temperature

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known of the calibration, among it that the temperature makes the loss worse."""
        if self.loss_change <= 0 or self.loss_change_interval is None:
            return self.fitted.notes
        low, high = self.loss_change_interval
        before, after = format_distinct(self.before.values["loss"] or 0.0, self.after.values["loss"] or 0.0)
        worse = (
            f"the temperature makes the loss worse on pictures that it was not fitted on: {before} to "
            f"{after}, by {self.loss_change:.2g} (95% interval of the difference {low:.2g} to {high:.2g})"
        )
        return (*self.fitted.notes, worse)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values; of `before` and `after` what a temperature changes."""

        def changed(scores: HeadScores) -> dict[str, Any]:
            names, full = ("loss", "brier", "ece"), scores.to_json()
            figures = {name: full[name] for name in names}
            return figures | {"intervals": {name: full["intervals"][name] for name in names}}

        return {
            **dataclasses.asdict(self.fitted),
            "n_reported": self.before.n,
            "before": changed(self.before),
            "after": changed(self.after),
            "bins_before": [dataclasses.asdict(bin_) for bin_ in self.bins_before],
            "bins_after": [dataclasses.asdict(bin_) for bin_ in self.bins_after],
            "curve": [dataclasses.asdict(point) for point in self.curve],
            "coverage": self.coverage,
            "accuracy_of_answers": self.accuracy,
            "interval_of_answers": list(self.interval) if self.interval else None,
            "loss_change": self.loss_change,
            "interval_of_loss_change": list(self.loss_change_interval) if self.loss_change_interval else None,
            "notes": list(self.notes),
        }


def check_calibration(
    answers: Answers, task: str, fitted: HeadCalibration, withheld: np.ndarray | None = None
) -> CalibrationCheck:
    """Returns what a head's calibration does on pictures that have its label and that it was not fitted on.

    Args:
      answers: answers on these pictures.
      task: the head.
      fitted: its calibration.
      withheld: for which pictures it withholds its answer whatever the threshold says, bool `[n]`.
    """
    logits, labels = answers.labelled(task)
    units = answers.units[answers.labels[task] >= 0]
    classes = answers.classes[task]
    scaled = logits / fitted.temperature
    before, after = (head_scores(values, labels, units, classes) for values in (logits, scaled))
    probability = probabilities(scaled)
    confidence, right = probability.max(axis=1), predicted(logits) == labels
    changes = losses(scaled, labels) - losses(logits, labels)
    coverage = accuracy = interval = None
    if fitted.threshold is not None or fitted.never_sure or withheld is not None:
        answered = ~fitted.unsure(confidence)
        if withheld is not None:
            answered &= ~withheld[answers.labels[task] >= 0]
        coverage = float(answered.mean())
        if answered.any():
            accuracy = float(right[answered].mean())
            shares, count = resampled_shares(right[answered], units[answered])
            interval = share_interval(shares, accuracy, count)
    return CalibrationCheck(
        fitted,
        before,
        after,
        reliability(probabilities(logits), labels),
        reliability(probability, labels),
        coverage_curve(confidence, right),
        coverage,
        accuracy,
        interval,
        float(changes.mean()),
        mean_interval(changes, units) if fitted.temperature != 1 else None,
    )
