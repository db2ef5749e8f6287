"""What a change of a model costs in accuracy: the same pictures, answered before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from facefeat_jax.evaluation._bootstrap import Interval, mean_interval
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.metrics import predicted
from facefeat_jax.evaluation.slices import known_groups


@dataclass(frozen=True)
class Loss:
    """How much accuracy a head loses on pictures.

    Attributes:
      head: the head.
      group: which pictures, such as `race White`; empty: all with a label.
      n: how many.
      before: accuracy before the change.
      after: accuracy after it.
      interval: 95% interval of before - after, by a bootstrap of the pictures' differences (persons as a whole).
    """

    head: str
    group: str
    n: int
    before: float
    after: float
    interval: Interval


def paired_losses(before: Answers, after: Answers) -> Iterator[Loss]:
    """Yields for each head with labels the loss on all its pictures, then on each group that the data know."""
    for task in before.classes:
        labels = before.labels[task]
        right = [predicted(answers.logits[task]) == labels for answers in (before, after)]
        lost = right[0].astype(np.float64) - right[1]
        parts = [("", np.flatnonzero(labels >= 0))]
        parts += [(f"{kind} {value}", rows) for kind, value, rows in known_groups(before, task)]
        for group, rows in parts:
            if len(rows):
                first, second = (float(hits[rows].mean()) for hits in right)
                yield Loss(task, group, len(rows), first, second, mean_interval(lost[rows], before.units[rows]))
