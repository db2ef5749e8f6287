"""Figures of one head in full, each with its 95% interval (`_bootstrap`). Points are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    recall_score,
    roc_auc_score,
)

from facefeat_jax.evaluation._bootstrap import Interval, Resamples, percentile_interval, share_interval
from facefeat_jax.evaluation._reliability import calibration_error, confidence_bins
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities

METRICS: dict[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "loss": "loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
"""Names of the figures in JSON and CSV, and what people call them."""


@dataclass(frozen=True)
class HeadScores:
    """The metrics of one head on labelled pictures.

    Attributes:
      classes: its class names.
      n: number of pictures.
      units: number of persons that they show, where the data set numbers them; else of pictures.
      values: by name, as in `METRICS`; None where a figure is not defined, which `notes` explain.
      intervals: the 95% interval of each; None where there is none.
      confusion: `[classes, classes]`, pictures by label (row) and answer (column).
      confusion_intervals: `[classes, classes, 2]`, of the shares of each row; NaN in rows without a picture.
      notes: remarks for the reader.
    """

    classes: tuple[str, ...]
    n: int
    units: int
    values: dict[str, float | None]
    intervals: dict[str, Interval | None]
    confusion: np.ndarray
    confusion_intervals: np.ndarray
    notes: tuple[str, ...]

    @property
    def guess(self) -> tuple[str, float]:
        """The most frequent class, and the accuracy of always answering it."""
        totals = self.confusion.sum(axis=1)
        return self.classes[int(totals.argmax())], float(totals.max() / totals.sum())

    @property
    def is_better_than_guess(self) -> bool:
        """Whether the whole interval of the accuracy lies above that of `guess`."""
        ends = self.intervals["accuracy"]
        return ends is not None and ends[0] > self.guess[1]

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as JSON values, those of `values` at the top; what is not defined is null."""
        rows = self.confusion.sum(axis=1, keepdims=True)
        shares = self.confusion / np.maximum(rows, 1)
        return {
            **self.values,
            "n": self.n,
            "units": self.units,
            "intervals": {name: list(ends) if ends else None for name, ends in self.intervals.items()},
            "confusion": {
                "classes": list(self.classes),
                "counts": self.confusion.tolist(),
                "shares": [row.tolist() if total else None for row, total in zip(shares, rows[:, 0], strict=True)],
                "intervals": [
                    row.tolist() if total else None
                    for row, total in zip(self.confusion_intervals, rows[:, 0], strict=True)
                ],
            },
            "notes": list(self.notes),
        }


def head_scores(
    logits: np.ndarray, labels: np.ndarray, units: np.ndarray, classes: Sequence[str], *, resamples: int | None = None
) -> HeadScores:
    """Returns the figures of a head.

    AUROC and average precision are those of the second class where there are two, else the mean over the classes, each
    against the rest. The Brier score is scikit-learn's: between 0 and 1 for two classes, and 0 and 2 for more. The
    calibration error is `_reliability.calibration_error`.

    Args:
      logits: `[n, outputs]`.
      labels: `[n]`, class numbers.
      units: `[n]`, what is drawn together when resampling.
      classes: names of the classes.
      resamples: how many; the default is `_bootstrap.RESAMPLES`.

    Raises:
      ValueError: there is no picture.
    """
    if not len(labels):
        raise ValueError("no picture to evaluate")
    probability = probabilities(logits)
    answer = predicted(logits)
    present = np.unique(labels)
    notes = _notes(classes, present)
    values: dict[str, float | None] = {
        "accuracy": float(accuracy_score(labels, answer)),
        "balanced_accuracy": float(recall_score(labels, answer, labels=present, average="macro", zero_division=0)),
        "auroc": None,
        "average_precision": None,
        "loss": float(losses(logits, labels).mean()),
        "brier": _brier(labels, probability),
        "ece": calibration_error(probability, labels),
    }
    ranked = _ranked(classes, present)
    if ranked:
        is_class = labels[:, None] == np.array(ranked)
        values["auroc"] = float(roc_auc_score(is_class, probability[:, ranked], average="macro"))
        values["average_precision"] = float(average_precision_score(is_class, probability[:, ranked], average="macro"))
    draws = Resamples(units) if resamples is None else Resamples(units, count=resamples)
    drawn, shares = resampled_figures(draws, logits, labels, ranked, present)
    intervals: dict[str, Interval | None] = {}
    for name, value in values.items():
        if value is None:
            intervals[name] = None
        elif name == "accuracy":
            intervals[name] = share_interval(drawn[name], value, draws.num_units)
        elif name == "ece":
            # The error of a resample, which has pictures twice, is larger than that of the pictures: moved back.
            low, high = percentile_interval(drawn[name]) + (value - np.median(drawn[name]))
            intervals[name] = (max(0.0, float(low)), float(high))
        else:
            low, high = percentile_interval(drawn[name])
            intervals[name] = (float(low), float(high)) if math.isfinite(low) else None
    if values["accuracy"] in (0.0, 1.0):
        all_are = "right" if values["accuracy"] else "wrong"
        notes.append(f"all answers are {all_are}: the interval of the accuracy is the exact one for a proportion")
    if len(present) == 1:
        # A resample draws the same class again, and what it says is that of the accuracy.
        intervals["balanced_accuracy"] = intervals["accuracy"]
    counts = confusion_matrix(labels, answer, labels=range(len(classes)))
    return HeadScores(
        classes=tuple(classes),
        n=len(labels),
        units=draws.num_units,
        values=values,
        intervals=intervals,
        confusion=counts,
        confusion_intervals=np.moveaxis(percentile_interval(shares), 0, -1),
        notes=tuple(notes),
    )


def _brier(labels: np.ndarray, probability: np.ndarray) -> float:
    if probability.shape[1] == 2:
        return float(brier_score_loss(labels, probability[:, 1], labels=[0, 1]))
    return float(brier_score_loss(labels, probability, labels=range(probability.shape[1])))


def _ranked(classes: Sequence[str], present: np.ndarray) -> list[int]:
    """Returns the classes whose scores are ranked against the rest; none where all pictures are of one class."""
    if len(present) < 2:
        return []
    return [1] if len(classes) == 2 else present.tolist()


def _notes(classes: Sequence[str], present: np.ndarray) -> list[str]:
    if len(present) == 1:
        only = classes[present[0]]
        return [f"all pictures are {only}: AUROC and average precision need two classes and are not defined"]
    absent = [name for number, name in enumerate(classes) if number not in present]
    if not absent:
        return []
    has, them = ("has", "it") if len(absent) == 1 else ("have", "them")
    return [f"{', '.join(absent)} {has} no picture here, so the means over classes leave {them} out"]


def resampled_figures(
    draws: Resamples, logits: np.ndarray, labels: np.ndarray, ranked: Sequence[int], present: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns each figure of each resample, and the shares of the confusion matrix `[resamples, classes, classes]`."""
    probability = probabilities(logits)
    answer = predicted(logits)
    num_classes = probability.shape[1]
    right = answer == labels
    squares = ((probability - np.eye(num_classes)[labels]) ** 2).sum(axis=1)
    per_picture = {
        "accuracy": right.astype(np.float64),
        "loss": losses(logits, labels),
        "brier": squares / 2 if num_classes == 2 else squares,
    }
    bins = confidence_bins(probability)
    in_bin = np.eye(bins.max() + 1)[bins]
    gap = probability.max(axis=1) - right
    cells = np.eye(num_classes**2)[labels * num_classes + answer]
    found: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    shares = []
    for weights in draws:
        total = weights.sum(axis=1)
        for name, values in per_picture.items():
            found[name].append(weights @ values / total)
        counts = (weights @ cells).reshape(-1, num_classes, num_classes)
        with np.errstate(invalid="ignore"):
            # A class that a resample does not hold has no share there, and no part in its mean.
            of_row = counts / counts.sum(axis=2, keepdims=True)
        shares.append(of_row)
        recalls = of_row[:, present, present]
        found["balanced_accuracy"].append(_mean_of_finite(recalls))
        found["ece"].append(np.abs(weights @ (in_bin * gap[:, None])).sum(axis=1) / total)
        if ranked:
            pairs = [ranking(probability[:, number], labels == number, weights) for number in ranked]
            found["auroc"].append(_mean_of_finite(np.stack([area for area, _ in pairs], axis=1)))
            found["average_precision"].append(_mean_of_finite(np.stack([mean for _, mean in pairs], axis=1)))
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}, np.concatenate(shares)


def _mean_of_finite(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(finite, values, 0.0).sum(axis=-1) / np.where(count, count, np.nan)


def ranking(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns AUROC and average precision under many weightings at once.

    They are scikit-learn's `roc_auc_score` and `average_precision_score` with `sample_weight`, which take one weighting
    at a time.

    Args:
      scores: `[n]`.
      positive: `[n]`, bool.
      weights: `[rows, n]`.

    Returns:
      Two arrays `[rows]`; NaN where a row holds no positive picture (or, for AUROC, no negative one).
    """
    order = np.argsort(-scores, kind="stable")
    # Pictures with the same score enter together.
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    hits = np.add.reduceat(np.where(positive[order], weights[:, order], 0.0), starts, axis=1)
    misses = np.add.reduceat(np.where(positive[order], 0.0, weights[:, order]), starts, axis=1)
    hits_so_far, misses_so_far = hits.cumsum(axis=1), misses.cumsum(axis=1)
    all_hits, all_misses = hits_so_far[:, -1], misses_so_far[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of all pairs of a positive and a negative picture, those that are in the right order; equal ones count half.
        ordered = (misses * (hits_so_far - hits / 2)).sum(axis=1)
        area = ordered / (all_hits * all_misses)
        precision = hits_so_far / (hits_so_far + misses_so_far)
        mean = np.where(hits > 0, hits * precision, 0.0).sum(axis=1) / all_hits
    return area, mean
