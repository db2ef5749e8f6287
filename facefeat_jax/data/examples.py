"""The splits of one or more data sets, seen as one list of labelled pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facefeat_jax.data._budget import FILES
from facefeat_jax.data._digests import digests_of
from facefeat_jax.data.dataset import Split, open_split
from facefeat_jax.data.selection import SplitName, shared
from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.progress import say

UNKNOWN = -1

IDENTITY = "identity"
"""The group that numbers persons, in data sets that have it."""


class Examples:
    """Labelled pictures under one running number.

    Attributes:
      splits: what the list is made of, in order.
      rows: for each split, the record numbers in use.
      labels: per task `[n]`, int32, in the numbering of `classes`; `UNKNOWN` where a picture has no label for it.

    Args:
      splits: prepared splits.
      classes: the class names of each task, in the order of the model's outputs.
      limit: use only this many pictures of each split, spread evenly over it.
      kept: for each split, the record numbers to choose from; the default is all.

    Raises:
      UserError: a split names classes that the model does not have.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        classes: Mapping[str, Sequence[str]],
        *,
        limit: int | None = None,
        kept: Sequence[np.ndarray] | None = None,
    ):
        self.splits = list(splits)
        self._classes = classes
        if kept is None:
            kept = [np.arange(len(split)) for split in self.splits]
        self.rows = [rows[_spread(len(rows), limit)] for rows in kept]
        self._split_of = np.concatenate([np.full(len(rows), number) for number, rows in enumerate(self.rows)])
        self._row_of = np.concatenate(self.rows)
        self.labels = {
            task: np.concatenate(
                [_numbered(split, task, names)[rows] for split, rows in zip(self.splits, self.rows, strict=True)]
            )
            for task, names in classes.items()
        }

    def __len__(self) -> int:
        return len(self._row_of)

    def read(self, index: int) -> bytes:
        """Returns the encoded picture of that number."""
        return self.splits[self._split_of[index]].read(int(self._row_of[index]))

    @contextmanager
    def opened(self, index: int) -> Iterator[bytes]:
        """Gives the encoded picture of that number, with its share of the memory for files (`_budget.FILES`).

        Data sets prepared by earlier versions don't state how large their files are; no memory is held for them.
        """
        with FILES.holding(self.splits[self._split_of[index]].largest_bytes) as keep:
            data = self.read(index)
            keep(len(data))
            yield data

    def name(self, index: int) -> str:
        """Returns where the picture came from: `source/split: file`."""
        split = self.splits[self._split_of[index]]
        return f"{split.source}/{split.split}: {split.source_files[self._row_of[index]]}"

    def groups(self) -> dict[str, np.ndarray]:
        """Returns what else is known of the pictures: per group `[n]`, str; blank where a picture's is not known."""
        names = dict.fromkeys(name for split in self.splits for name in split.groups)
        return {
            name: np.concatenate(
                [
                    split.groups[name][rows] if name in split.groups else np.full(len(rows), "")
                    for split, rows in zip(self.splits, self.rows, strict=True)
                ]
            )
            for name in names
        }

    def units(self) -> np.ndarray:
        """Returns what each picture shows, as a text `[n]`: pictures of the same person share it.

        It is the person where the data set numbers them (its group `identity`), else the file, and depends on nothing
        else: not on the other pictures, their order or a limit.
        """
        identity = self.groups().get(IDENTITY, np.full(len(self), ""))
        return np.array(
            [
                f"{split.source}: person {person}" if person else f"{split.source}: {split.source_files[row]}"
                for split, row, person in zip(
                    (self.splits[number] for number in self._split_of), self._row_of, identity, strict=True
                )
            ],
            dtype=str,
        )

    def digests(self) -> np.ndarray:
        """Returns the digest of each picture's file, `[n]`, uint64; see `data._digests`."""
        return np.concatenate([digests_of(split)[rows] for split, rows in zip(self.splits, self.rows, strict=True)])

    def only(self, chosen: np.ndarray, *, limit: int | None = None) -> Examples:
        """Returns some of the pictures, in the same order: those where the mask `[n]` is true; see `Examples`."""
        ends = np.cumsum([len(rows) for rows in self.rows])[:-1]
        kept = [rows[mask] for rows, mask in zip(self.rows, np.split(chosen, ends), strict=True)]
        return Examples(self.splits, self._classes, kept=kept, limit=limit)

    def by_split(self) -> list[Examples]:
        """Returns the pictures of each split on their own, without labels."""
        return [Examples([split], {}, kept=[rows]) for split, rows in zip(self.splits, self.rows, strict=True)]

    def labelled(self, task: str) -> np.ndarray:
        """Returns the numbers (int64) of the pictures that have a label for the task."""
        return np.flatnonzero(self.labels[task] != UNKNOWN)


def open_examples(
    sources: Iterable[str],
    split: Literal["train", "val"],
    data_dir: Path,
    classes: Mapping[str, Sequence[str]],
    *,
    limit: int | None = None,
    need_all: bool = True,
    disjoint: Sequence[str] = (),
) -> Examples:
    """Opens one split of each source; see `Examples`.

    Args:
      sources: names of prepared data sets.
      split: which half.
      data_dir: where they lie.
      classes: as in `Examples`.
      limit: as in `Examples`.
      need_all: whether each task must have a label.
      disjoint: names of groups. Pictures that share one with a picture in the other half of their source are left out,
        and how many is said.

    Raises:
      UserError: a source is not prepared, its classes don't fit, no source has such a group, or, with `need_all`, no
        source labels some task.
    """
    sources, disjoint = kinds.names(sources, "sources"), kinds.names(disjoint, "disjoint")
    splits = [open_split(source, split, data_dir) for source in sources]
    kept = [np.arange(len(split)) for split in splits]
    if disjoint:
        other: SplitName = "val" if split == "train" else "train"
        kept = _disjoint(splits, [open_split(source, other, data_dir) for source in sources], disjoint)
    examples = Examples(splits, classes, limit=limit, kept=kept)
    for task in classes:
        if need_all and not len(examples.labelled(task)):
            opened = ", ".join(s.source for s in examples.splits)
            raise UserError(
                f"no picture of {opened} ({split}) has a label for {task!r}; add a source with one, or remove the task"
            )
    return examples


def open_halves(
    sources: Iterable[str],
    data_dir: Path,
    classes: Mapping[str, Sequence[str]],
    *,
    limit: int | None = None,
    need_all: bool = True,
    disjoint: Sequence[str] = (),
) -> tuple[Examples, Examples]:
    """Opens the pictures that a run is trained on, and those that it is validated on; arguments as `open_examples`.

    Raises:
      UserError: see `open_examples`.
    """
    sources = kinds.names(sources, "sources")
    options: dict[str, Any] = {"limit": limit, "need_all": need_all}
    training = open_examples(sources, "train", data_dir, classes, disjoint=disjoint, **options)
    return training, open_examples(sources, "val", data_dir, classes, **options)


def count_data(splits: Mapping[str, Examples], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns how many pictures each split has, of each class: what `results.json` may hold as `data`.

    Args:
      splits: by name, such as `train` and `val`.
      classes: class names of each task.
    """
    return {
        split: {
            "pictures": len(examples),
            "classes": {
                task: {name: int(np.sum(examples.labels[task] == number)) for number, name in enumerate(names)}
                for task, names in classes.items()
            },
        }
        for split, examples in splits.items()
    }


def _disjoint(splits: Sequence[Split], others: Sequence[Split], groups: Sequence[str]) -> list[np.ndarray]:
    """Returns the numbers of each split's records that share none of the groups with the other half."""
    there = sorted({name for split in splits for name in split.groups})
    for group in groups:
        if group not in there:
            raise unknown("group", group, there)
    kept = []
    for split, other in zip(splits, others, strict=True):
        left_out = np.zeros(len(split), bool)
        for group in groups:
            if group in split.groups and group in other.groups:
                left_out |= shared(split.groups[group], other.groups[group])
        if left_out.any():
            say(
                f"{split.source}: {left_out.sum()} of {len(left_out)} pictures of {split.split} are left out, "
                f"because their {' or '.join(groups)} is in {other.split} too"
            )
        kept.append(np.flatnonzero(~left_out))
    return kept


def _spread(count: int, limit: int | None) -> np.ndarray:
    if limit is None or limit >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).astype(np.int64)


def _numbered(split: Split, task: str, names: Sequence[str]) -> np.ndarray:
    """Returns the split's labels for the task in the model's numbering, matched by class name."""
    if task not in split.classes:
        return np.full(len(split), UNKNOWN, np.int32)
    if absent := [name for name in split.classes[task] if name not in names]:
        raise UserError(
            f"{task} of data set {split.source!r} has classes that the model does not have: {', '.join(absent)} "
            f"(the model's: {', '.join(names)}). Evaluate on other data, or convert the weights with --classes"
        )
    to_model = np.array([names.index(name) for name in split.classes[task]], np.int32)
    labels = split.labels[task]
    return np.where(labels == UNKNOWN, UNKNOWN, to_model[labels]).astype(np.int32)
