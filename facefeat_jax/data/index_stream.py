"""The one index stream: which pictures, in which order, in which step.

Everything is a function of the step number: a run is resumed by asking for its next step, and two feeds that ask for
the same step get the same pictures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from facefeat_jax.data.examples import Examples
from facefeat_jax.system import kinds


class IndexBatch(NamedTuple):
    """The pictures of one step.

    Attributes:
      tasks: the heads whose losses are taken.
      indices: `[batch_size]`, int64, numbers of pictures; the last batch of a pass is padded with its first number.
      mask: `[batch_size]`, bool, false for padding.
    """

    tasks: tuple[str, ...]
    indices: np.ndarray
    mask: np.ndarray


class Call(NamedTuple):
    """The steps that are taken in one call of a compiled program; all of one pass."""

    first_step: int  # number of the first
    num_steps: int  # how many
    tasks: tuple[str, ...]  # the heads whose losses are taken

    @property
    def end_step(self) -> int:
        """Number of the step after the last."""
        return self.first_step + self.num_steps


@dataclass(frozen=True)
class Pass:
    """A run of steps over the pictures of some tasks, once each."""

    epoch: int  # counted from 0
    tasks: tuple[str, ...]  # the heads that are trained in it
    first_step: int  # number of its first step in the run
    num_steps: int  # how many steps it has
    num_pictures: int  # how many pictures it goes through
    last_of_epoch: bool  # whether the epoch ends with it

    @property
    def end_step(self) -> int:
        """Number of the step after its last."""
        return self.first_step + self.num_steps

    def calls(self, steps_per_call: int) -> list[Call]:
        """Returns its steps, grouped into calls; the last may have fewer.

        The grouping depends on the number of the step alone, never on where a run was resumed: a step that is taken
        together with others differs from one that is taken alone in the last bits.
        """
        starts = range(self.first_step, self.end_step, steps_per_call)
        return [Call(start, min(steps_per_call, self.end_step - start), self.tasks) for start in starts]


class IndexStream:
    """The steps of a training run, by number; a random-access source for `grain.MapDataset.source`.

    Args:
      examples: the training pictures.
      tasks: the heads.
      schedule: `sequential` gives each epoch one pass per task, over the pictures that have its label, in the order of
        `tasks`; `mixed` gives it one pass over all pictures that have any label.
      batch_size: pictures per step.
      epochs: how often every pass is repeated, shuffled anew.
      seed: seed of the shuffling.
      balance: exponent for `mixed`. Below 1, pictures with the same set of labels form a group, and each group's share
        of every batch is proportional to its size to this power. The number of pictures per pass does not change:
        large groups are not shown completely, and pictures of small groups repeat. A group is reshuffled only after all
        of its pictures were shown, which may take several passes.
      padded_size: what batches are padded to; the default is `batch_size`.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        tasks: Sequence[str],
        schedule: Literal["sequential", "mixed"],
        batch_size: int,
        epochs: int,
        seed: int,
        balance: float = 1.0,
        padded_size: int | None = None,
    ):
        import grain  # here, not above: `feeds` is read where predicting alone is installed

        tasks = kinds.names(tasks, "tasks")
        groups: dict[tuple[str, ...], np.ndarray]
        if schedule == "sequential":
            groups = {(task,): examples.labelled(task) for task in tasks}
        else:
            any_label = np.any([examples.labels[task] >= 0 for task in tasks], axis=0)
            groups = {tuple(tasks): np.flatnonzero(any_label)}
        self._padded_size = padded_size or batch_size
        self._batch_size = batch_size
        self._mix = None
        if schedule == "mixed" and balance != 1:
            (everything,) = groups.values()
            parts = _by_labels(examples, tasks, everything)
            # grain rounds weights to a hundredth of the smallest.
            self._mix = grain.MapDataset.mix(
                [
                    grain.MapDataset.source(part).seed(seed * len(parts) + number).shuffle().repeat()
                    for number, part in enumerate(parts)
                ],
                [len(part) ** balance for part in parts],
            )
        # `.seed` spreads neighbouring seeds apart; `.shuffle(seed=...)` would make epoch 1 of seed 0 epoch 0 of seed 1.
        self._shuffled = {
            group: grain.MapDataset.source(indices).seed(seed * len(groups) + number).shuffle().batch(batch_size)
            for number, (group, indices) in enumerate(groups.items())
        }
        self.passes: list[Pass] = []
        for epoch in range(epochs):
            for number, (group, indices) in enumerate(groups.items()):
                self.passes.append(
                    Pass(
                        epoch=epoch,
                        tasks=group,
                        first_step=self.passes[-1].end_step if self.passes else 0,
                        num_steps=len(self._shuffled[group]),
                        num_pictures=len(indices),
                        last_of_epoch=number == len(groups) - 1,
                    )
                )
        self._first_steps = [pass_.first_step for pass_ in self.passes]

    def __len__(self) -> int:
        return self.passes[-1].end_step

    def pass_at(self, step: int) -> Pass:
        """Returns the pass that the step belongs to."""
        return self.passes[bisect_right(self._first_steps, step) - 1]

    def __getitem__(self, step: int) -> IndexBatch:
        """Returns the pictures of a step, from 0; raises IndexError outside of the run."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        at = self.pass_at(step)
        if self._mix is None:
            indices = self._shuffled[at.tasks][at.epoch * at.num_steps + step - at.first_step]
        else:
            first = (step - at.first_step) * self._batch_size
            places = range(first, min(first + self._batch_size, at.num_pictures))
            indices = np.array([self._mix[at.epoch * at.num_pictures + place] for place in places])
        return pad(at.tasks, indices, self._padded_size)


def _by_labels(examples: Examples, tasks: Sequence[str], indices: np.ndarray) -> list[np.ndarray]:
    """Returns the numbers, parted by which of the tasks they have labels for."""
    known = np.stack([examples.labels[task][indices] >= 0 for task in tasks], axis=1)
    patterns, part_of = np.unique(known, axis=0, return_inverse=True)
    return [indices[part_of.reshape(-1) == number] for number in range(len(patterns))]


def in_order(indices: np.ndarray, tasks: tuple[str, ...], batch_size: int) -> list[IndexBatch]:
    """Returns the batches of one pass over `indices` `[n]` in their order, as validation takes them."""
    return [pad(tasks, indices[start : start + batch_size], batch_size) for start in range(0, len(indices), batch_size)]


def pad(tasks: tuple[str, ...], indices: np.ndarray, size: int) -> IndexBatch:
    """Fills a short batch up with its first picture, masked out: one compiled program serves batches of any size."""
    padded = np.full(size, indices[0], np.int64)
    padded[: len(indices)] = indices
    return IndexBatch(tasks, padded, np.arange(size) < len(indices))
