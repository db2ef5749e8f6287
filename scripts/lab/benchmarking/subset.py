"""A smaller copy of downloaded data sets, in the same layout: fewer pictures of every class."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from benchmarking.pictures import SOURCES, write_fairface_table
from facefeat_jax.data.builders import builder_class
from facefeat_jax.data.selection import Row, SplitName
from facefeat_jax.data.sources import open_source
from facefeat_jax.system.errors import UserError

Item = TypeVar("Item")
Contents = dict[str, dict[SplitName, list[tuple[Row, bytes]]]]  # by source and split


def write_subset(downloads: Path, out: Path, *, fraction: float = 1.0, max_bytes: int | None = None) -> tuple[int, int]:
    """Copies a part of `fairface/`, `glasses/` and `apparel/`, spread evenly over what the baseline selects of each.

    Args:
      downloads: folder of the three downloads, each as `facefeat prepare` takes it.
      out: a new folder.
      fraction: of the selected pictures.
      max_bytes: take fewer, if need be, so that the pictures are no more than that together.

    Returns:
      How many pictures were written, and their bytes.

    Raises:
      UserError: a download is missing or does not look right, or `out` holds something, or git would take it in.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"--fraction must be more than 0 and at most 1, got {fraction}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; give a new one")
    _refuse_tracked(out)
    contents: Contents = {}
    for name in SOURCES:
        builder, folder = builder_class(name), downloads / name
        tree = open_source(builder.SOURCE, folder)
        chosen = builder.selected(tree, folder)
        contents[name] = {
            split: [(row, tree.read(chosen.root + row.source_file)) for row in _spread(_ordered(name, rows), fraction)]
            for split, rows in chosen.rows.items()
        }
    total = _size(contents)
    while max_bytes is not None and total > max_bytes:
        share = max_bytes / total * 0.98
        for splits in contents.values():
            splits.update({split: _spread(pictures, share) for split, pictures in splits.items()})
        if (smaller := _size(contents)) >= total:
            raise UserError(f"no subset of {max_bytes} bytes has pictures of every kind; allow more")
        total = smaller
    count = 0
    for name, splits in contents.items():
        for split, pictures in splits.items():
            for row, data in pictures:
                path = out / name / row.source_file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                count += 1
            if name == "fairface":
                rows = (
                    (r.source_file, r.groups["age"], r.labels["gender"].capitalize(), r.groups["race"])
                    for r, _ in pictures
                )
                write_fairface_table(out / name, split, rows)
    return count, total


def _fairface_columns(row: Row) -> tuple[str, str, str, str]:
    return row.source_file, row.groups["age"], row.labels["gender"].capitalize(), row.groups["race"]


def _size(contents: Contents) -> int:
    return sum(len(data) for splits in contents.values() for pictures in splits.values() for _, data in pictures)


def _ordered(name: str, rows: Sequence[Row]) -> list[Row]:
    # By name, so that folders, which are classes, keep their shares; FairFace's rows as its table has them.
    return list(rows) if name == "fairface" else sorted(rows, key=lambda row: row.source_file)


def _spread(items: Sequence[Item], fraction: float) -> list[Item]:
    count = min(len(items), max(3, round(len(items) * fraction)))
    return [items[number * len(items) // count] for number in range(count)]


def _refuse_tracked(out: Path) -> None:
    """Raises UserError for a folder whose content git would take into a project: the pictures may not be published."""
    present = next(parent for parent in [out.absolute(), *out.absolute().parents] if parent.is_dir())
    try:
        ignored = subprocess.run(
            ["git", "-C", str(present), "check-ignore", "-q", str(out.absolute())], capture_output=True, check=False
        ).returncode
    except OSError:
        return  # no git, no project to take it in
    if ignored == 1:  # in a work tree, and not ignored there; elsewhere it is 128
        raise UserError(f"git would take {out} into a project; give a folder outside it, or one that it ignores")
