"""Which pictures of the prepared data a run was trained on, and which not: by its record, whatever the data are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facefeat_jax.data.examples import Examples, open_examples, open_halves
from facefeat_jax.runs.data_record import (
    DataRecord,
    Part,
    copies_note,
    difference,
    is_unchanged,
    parts_of,
    without_record,
)
from facefeat_jax.runs.run_folder import Run
from facefeat_jax.system.errors import UserError

FEWEST = 10
"""Where pictures that were trained on are left out, fewer others than these are not evaluated on."""


class Unseen(NamedTuple):
    """Pictures that a run was not trained on."""

    examples: Examples  # the pictures
    notes: list[str]  # lines: how the data differ from those of the run, and what is left out


class Halves(NamedTuple):
    """The pictures of a run's data sets."""

    train: Examples  # those that it was trained on
    val: Examples  # others
    notes: list[str]  # lines: how the data differ from those of the run


def open_unseen(run: Run, sources: Sequence[str], data_dir: Path, *, limit: int | None) -> Unseen:
    """Returns the validation pictures of data sets, without those that a run was trained on.

    Of data that are as they were when the run was trained, all are returned, so that the figures are those of the
    training; where some are copies of training pictures, that is in the notes.

    Raises:
      UserError: a data set is not prepared or does not fit, the run's record is damaged, or pictures are left out and
        less than `FEWEST` remain.
    """
    examples = open_examples(sources, "val", data_dir, run.spec.classes, limit=limit, need_all=False)
    record = DataRecord.read(run.folder)
    if record is None:
        return Unseen(examples, [_unchecked(run)])
    parts, trained = parts_of(examples), record.trained
    unchanged = np.concatenate([np.full(len(part.digests), is_unchanged(part, record.validation)) for part in parts])
    copies = np.isin(examples.digests(), trained)
    left_out = copies & ~unchanged
    count, rest, names = int(left_out.sum()), int((~left_out).sum()), ", ".join(sources)
    if count and rest < FEWEST:
        raise UserError(
            f"{run.folder} was trained on {count:,} of the {len(examples):,} validation pictures of {names}, and the "
            f"{rest} others are too few to evaluate it on; name other data with --data, or restore the original {names}"
        )
    notes = _changes(run, record.validation, parts)
    if count:
        notes.append(f"{count:,} of {len(examples):,} validation pictures of {names} were trained on and are left out")
    if doubled := int((copies & unchanged).sum()):
        notes.append(copies_note(doubled, len(examples)))
    return Unseen(examples.only(~left_out) if count else examples, notes)


def halves(run: Run, data_dir: Path) -> Halves:
    """Returns the pictures of a run's data sets, parted by whether it was trained on them.

    Of data that are as they were, `val` has the pictures that the run was validated on. Of data that were prepared anew
    it has all those that were not trained on, in whichever split they are now.

    Raises:
      UserError: a data set is not prepared or does not fit, or the run's record is damaged.
    """
    data = run.config.data
    train, val = open_halves(
        data.sources, data_dir, run.spec.classes, limit=data.limit, need_all=False, disjoint=data.disjoint
    )
    record = DataRecord.read(run.folder)
    if record is None:
        return Halves(train, val, [_unchecked(run)])
    before, now = record.training + record.validation, parts_of(train) + parts_of(val)
    if all(is_unchanged(part, before) for part in now):
        return Halves(train, val, [])
    both = Examples([*train.splits, *val.splits], run.spec.classes)
    digests, trained = both.digests(), record.trained
    known = np.isin(digests, trained)
    there = int(np.isin(trained, digests).sum())
    note = f"{there:,} of the {len(trained):,} training pictures are still there, in train or val"
    return Halves(both.only(known), both.only(~known, limit=data.limit), [*_changes(run, before, now), note])


def _changes(run: Run, before: Sequence[Part], now: Sequence[Part]) -> list[str]:
    """Returns a line for each split of the run's data that is not as it was."""
    return [
        f"the data are not those of {run.folder}: {difference(earlier, part)}"
        for part in now
        for earlier in before
        if (earlier.source, earlier.split) == (part.source, part.split) and not is_unchanged(part, before)
    ]


def _unchecked(run: Run) -> str:
    if run.config.data.sources:
        return without_record(run.folder)
    return f"{run.folder} was not trained here: whether it was trained on any of these pictures can't be checked"
