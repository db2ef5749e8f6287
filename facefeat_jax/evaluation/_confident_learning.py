"""Confident learning: which labels a model contradicts with more confidence than its class usually has.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021. The threshold of
a class is the mean probability that the model gives it on the pictures of that label. A picture belongs confidently to
the most probable of the classes whose threshold it reaches; where that is not its label, the label is likely wrong.
"""

from __future__ import annotations

import numpy as np

_TOLERANCE = 1e-6  # a class whose pictures all have the same probability reaches its own mean


def confident_errors(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns which labels are likely wrong, bool `[n]`: the paper's off-diagonal entries of the confident joint.

    Args:
      probability: `[n, classes]`, of pictures that the model was not trained on: it may have memorised those.
      labels: `[n]`, class numbers.
    """
    classes = range(probability.shape[1])
    of_class = [probability[labels == number, number] for number in classes]
    thresholds = np.array([values.mean() if len(values) else np.inf for values in of_class])
    confident = np.where(probability >= thresholds - _TOLERANCE, probability, -1.0)
    best = confident.argmax(axis=1)
    is_known = confident[np.arange(len(labels)), best] >= 0
    return is_known & (best != labels) & (probability.argmax(axis=1) != labels)


def margins(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns by how much the label's probability exceeds that of the best other class, `[n]`, in [-1, 1]."""
    rows = np.arange(len(labels))
    others = np.array(probability, np.float64)
    others[rows, labels] = -1.0
    return probability[rows, labels] - others.max(axis=1)


def ranks(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the rank of each picture, int `[n]`, from 1, the most likely wrong label.

    Confident errors come first, then the others; each by the normalised margin of the paper, the smallest first.
    """
    order = np.lexsort((margins(probability, labels), ~confident_errors(probability, labels)))
    found = np.empty(len(labels), int)
    found[order] = np.arange(1, len(labels) + 1)
    return found
