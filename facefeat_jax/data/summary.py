"""What `facefeat prepare` says that it did."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facefeat_jax.data._listing import HOLDS, Picture
from facefeat_jax.data.dataset import RECORDS
from facefeat_jax.data.selection import BAD_PICTURE, NO_PICTURE, Selection, SplitName
from facefeat_jax.data.sources import Source
from facefeat_jax.system.text import count, format_size, one_line
from facefeat_jax.tasks import TASKS

LEFT_OUT = "left_out.csv"

_NAMED = 3  # pictures of each kind that a summary names
_SHORTENING = (BAD_PICTURE, NO_PICTURE)  # reasons for which a picture that was selected is left out


@dataclass(frozen=True)
class PrepareSummary:
    """What `prepare` did; `str` gives a block to print.

    Attributes:
      source: name of the data set.
      version: version of the prepared form.
      folder: where it is.
      kept: pictures per split.
      selected: pictures that the selection wanted, per split; more than `kept` where some are missing or don't decode.
      classes: per split and task the number of pictures of each class.
      left_out: files and label rows not used, by reason.
      notes: how it was selected, and what is odd about it.
      num_bytes: size of the pictures.
      largest_bytes: size of the largest of them; 0 where an earlier version prepared them.
      seconds: how long it took.
      prepared_from: the download, as an absolute path; empty where it was drawn, or an earlier version prepared it.
      already_prepared: whether it was prepared before and nothing was done.
    """

    source: str
    version: str
    folder: Path
    kept: dict[str, int]
    selected: dict[str, int]
    classes: dict[str, dict[str, dict[str, int]]]
    left_out: dict[str, int]
    notes: list[str] = field(default_factory=list)
    num_bytes: int = 0
    largest_bytes: int = 0
    seconds: float = 0.0
    prepared_from: str = ""
    already_prepared: bool = False

    @property
    def left_out_csv(self) -> Path:
        """The list of files that were left out: file, split, reason, detail."""
        return self.folder / LEFT_OUT

    def records_csv(self, split: SplitName) -> Path:
        """The listing of a split: record number, source file and row, labels, groups."""
        return self.folder / RECORDS.format(split=split)

    def to_json(self) -> dict[str, object]:
        """Returns the summary as plain values."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        return "\n".join(map(one_line, self.lines()))

    def lines(self) -> list[str]:
        """Returns the block's lines, names in them as they are."""
        title = f"{self.source} {self.version}"
        if self.already_prepared:
            origin = f" from {self.prepared_from}" if self.prepared_from else ""  # drawn, or not recorded
            title += f": already prepared{origin}, nothing to do (--overwrite prepares it again)"
        lines = [title]
        for split, kept in self.kept.items():
            short = self.selected[split] - kept
            lines.append(f"  {split:<6}{kept:>7,} pictures" + (f" ({short:,} fewer than selected)" if short else ""))
            for task, counts in self.classes[split].items():
                lines.append(f"    {task}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
        lines.append(f"  left out{sum(self.left_out.values()):>8,}")
        lines += [f"    {reason}: {count:,}" for reason, count in self.left_out.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  {format_size(self.num_bytes)} in {self.seconds:,.1f} s, in {self.folder}")
        lines.append(f"  listings: {RECORDS.format(split='*')}; left out, with reasons: {LEFT_OUT}")
        return lines


def summary_of(
    source: Source,
    folder: Path,
    chosen: Selection,
    pictures: Mapping[SplitName, Sequence[Picture]],
    from_: Path | None,
    seconds: float,
) -> PrepareSummary:
    notes = list(chosen.notes)
    notes += _about_pictures([picture for of_split in pictures.values() for picture in of_split])
    classes: dict[str, dict[str, dict[str, int]]] = {}
    for split, of_split in pictures.items():
        counts = {task: Counter(picture.row.labels[task] for picture in of_split) for task in source.tasks}
        classes[split] = {task: {name: counts[task][name] for name in TASKS[task].classes} for task in source.tasks}
        if absent := [name for of_task in classes[split].values() for name, count in of_task.items() if not count]:
            notes.append(f"no picture in {split} of: {', '.join(absent)}")
    missing = Counter(left.split for left in chosen.left_out if left.split and left.reason in _SHORTENING)
    return PrepareSummary(
        source=source.name,
        version=source.version,
        folder=folder,
        kept={split: len(of_split) for split, of_split in pictures.items()},
        selected={split: len(of_split) + missing[split] for split, of_split in pictures.items()},
        classes=classes,
        left_out=dict(Counter(left.reason for left in chosen.left_out).most_common()),
        notes=notes,
        num_bytes=sum(picture.num_bytes for of_split in pictures.values() for picture in of_split),
        largest_bytes=max(picture.num_bytes for of_split in pictures.values() for picture in of_split),
        seconds=round(seconds, 2),
        prepared_from=os.path.realpath(from_) if from_ else "",
    )


def _about_pictures(pictures: Sequence[Picture]) -> list[str]:
    """Returns what is odd about kept pictures, each with their number and the first names."""
    named: dict[str, list[str]] = {}
    for picture in pictures:
        for note in picture.notes:
            kind = "they hold another format than their names say" if note.startswith(HOLDS) else note
            named.setdefault(kind, []).append(picture.row.source_file)
    return [
        f"{count(len(names), 'kept picture')}: {kind} "
        f"({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}; see the listings)"
        for kind, names in named.items()
    ]
