"""What the training pictures of a head are like (`runs._head_likeness`), fitted to validation pictures.

The distribution is fitted on one part of them, its threshold on the other (`calibration.fitting_part`). What it is
worth: docs/benchmarks/unlike.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import fitting_part
from facefeat_jax.runs._head_likeness import RANK as RANK
from facefeat_jax.runs._head_likeness import HeadLikeness as HeadLikeness
from facefeat_jax.runs._head_likeness import Likeness as Likeness

LEAST = 50
"""Pictures that it takes to fit a head's distribution, and to choose its threshold."""

FALSE_ALARMS = 0.01
"""Share of pictures like the training pictures that are taken for others."""


def fit_heads(answers: Answers) -> dict[str, HeadLikeness]:
    """Fits the distribution of each head to the pictures with its label, and chooses its threshold.

    Heads with fewer than `LEAST` such pictures in either part are left out. None of them `withholds` an answer yet.
    """
    found: dict[str, HeadLikeness] = {}
    if answers.features is None:
        return found
    fitted = fitting_part(answers.units)
    for task in answers.classes:
        known = answers.labels[task] >= 0
        part, rest = answers.features[known & fitted], answers.features[known & ~fitted]
        if min(len(part), len(rest)) >= LEAST:
            head = HeadLikeness.fit(part)
            threshold = float(np.quantile(head.distance(rest), 1 - FALSE_ALARMS))
            found[task] = dataclasses.replace(head, threshold=threshold)
    return found


def own(answers: Answers, task: str) -> np.ndarray:
    """Returns the features of a head's pictures that its distribution was not fitted on, `[n, features]`."""
    assert answers.features is not None
    return answers.features[(answers.labels[task] >= 0) & ~fitting_part(answers.units)]


def withheld(likeness: Likeness | None, answers: Answers) -> dict[str, np.ndarray]:
    """Returns for which pictures each head that withholds answers does so, bool `[n]`; other heads are left out."""
    if likeness is None or answers.features is None:
        return {}
    return {task: head.unlike(answers.features) for task, head in likeness.heads.items() if head.withholds}


def measured(head: HeadLikeness, like: np.ndarray, others: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns how well the distance tells other pictures from a head's own: the AUROC for each kind.

    Args:
      head: the head's.
      like: features of its own pictures, which it was not fitted on, `[n, features]`.
      others: features by kind, `[m, features]`.
    """
    inside = np.sort(head.distance(like))
    # The share of pairs in which the other picture is farther away; ties count half.
    return {
        kind: float(np.mean([np.searchsorted(inside, far, side) for side in ("left", "right")]) / len(inside))
        for kind, features in others.items()
        for far in (head.distance(features),)
    }
