"""How probabilities compare with frequencies: calibration error, reliability diagram, accuracy by coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

NUM_BINS = 15
"""Of equal width, as Guo and others have it (see `calibration`)."""


def confidence_bins(probability: np.ndarray) -> np.ndarray:
    """Returns the bin `[n]`, from 0, of the probability of each answer; `probability` is `[n, classes]`."""
    confidence = probability.max(axis=1)
    return np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def calibration_error(probability: np.ndarray, labels: np.ndarray) -> float:
    """Returns the expected calibration error: mean over bins of |confidence - accuracy|, weighted by their pictures.

    Over `NUM_BINS` bins of equal width of the answer's probability: Naeini, Cooper and Hauskrecht, "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning", AAAI 2015, in the form of Guo and others. With few pictures even
    perfect probabilities have an error above 0.

    Args:
      probability: `[n, classes]`.
      labels: `[n]`, class numbers.
    """
    gap = probability.max(axis=1) - (probability.argmax(axis=1) == labels)
    return float(np.abs(np.bincount(confidence_bins(probability), gap)).sum() / len(labels))


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies between `low` and `high`."""

    low: float  # exclusive
    high: float  # inclusive
    n: int  # number of pictures
    confidence: float  # mean probability of the answers
    accuracy: float  # share that is right
    interval: tuple[float, float]  # 95% interval of that share, exact (Clopper and Pearson)


def reliability(probability: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Returns the bins that hold a picture, for a reliability diagram; arguments as for `calibration_error`."""
    confidence = probability.max(axis=1)
    right = probability.argmax(axis=1) == labels
    bins = confidence_bins(probability)
    found = []
    for number in np.unique(bins).tolist():
        chosen = bins == number
        n, hits = int(chosen.sum()), int(right[chosen].sum())
        low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
        high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
        edges = number / NUM_BINS, (number + 1) / NUM_BINS
        found.append(Bin(*edges, n, float(confidence[chosen].mean()), hits / n, (low, high)))
    return found


@dataclass(frozen=True)
class Coverage:
    """What a threshold leaves."""

    threshold: float  # least probability of an answer
    coverage: float  # share of pictures that get an answer
    accuracy: float  # share of the answers that is right


def coverage_curve(confidence: np.ndarray, right: np.ndarray, *, points: int = 100) -> list[Coverage]:
    """Returns the accuracy of the answers as fewer and fewer pictures are answered.

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
