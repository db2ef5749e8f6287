"""Which pictures of a download are used, in which split, under which label; every file is accounted for.

The rules of each data set are the function `select` of its builder's module: a pure function of listings and label
tables, which opens files only to tell copies from others, by the function that is given for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from facefeat_jax.data._roots import Place

SplitName = Literal["train", "val"]

VAL_FRACTION = 0.2
SPLIT_SEED = 42

# Why a file or row is left out.
BEYOND_QUOTA = "beyond the balance quota"
OTHER_FOLDER = "folder not selected"
WRONG_SUFFIX = "suffix not selected"
NO_LABEL = "picture without label"
NO_PICTURE = "label without picture"
BAD_ROW = "label row not usable"
UNKNOWN_CLASS = "unknown class"
TWICE = "labelled twice"
NOT_OFFERED = "not a file that is read"
BAD_PICTURE = "picture does not decode"
SAME_FILE = "same file as one that is taken"

UNLISTED = frozenset({BEYOND_QUOTA, OTHER_FOLDER})
"""Reasons that are counted but not listed file by file: there is nothing wrong with those files."""


class LayoutError(Exception):
    """The listing is not that of the data set; the message says what was found."""


@dataclass(frozen=True)
class Row:
    """A picture that is used.

    Attributes:
      source_file: its name, relative to the top folder of the set.
      source_row: its row in the label file, or its place in the sorted listing of what was selected; from 0.
      labels: task to class name.
      groups: what else is known, as text; blank where unknown.
    """

    source_file: str
    source_row: int
    labels: dict[str, str]
    groups: dict[str, str]


@dataclass(frozen=True)
class LeftOut:
    """A file or label row that is not used.

    Attributes:
      file: its name in the download.
      split: the split that it would have been in, or empty.
      reason: one of this module's constants.
      detail: what exactly, or empty.
    """

    file: str
    split: str
    reason: str
    detail: str = ""


@dataclass
class Selection:
    """What is used of a download.

    Attributes:
      rows: per split, in the order of the records.
      left_out: everything else.
      root: what precedes each `source_file` in the download's listing (a wrapping folder), or empty.
      notes: what a reader of the summary should know.
    """

    rows: dict[SplitName, list[Row]]
    left_out: list[LeftOut] = field(default_factory=list)
    root: str = ""
    notes: list[str] = field(default_factory=list)


def shared(values: Sequence[str] | np.ndarray, others: Iterable[str]) -> np.ndarray:
    """Returns which of `values` are among `others`: `[n]`, bool. Blank ones, which are unknown, are not."""
    known = set(others) - {""}
    return np.array([value in known for value in values], bool)


def plain(folder: str) -> str:
    """Returns a folder's name as the sets spell it: in small letters, with `_` for blanks and hyphens."""
    return "_".join(re.split("[_ -]+", folder.strip().casefold()))


def _respelled(rows: Sequence[Row]) -> list[str]:
    """Returns a note where folders were taken whose names are spelled in another way."""
    folders = sorted({PurePosixPath(row.source_file).parent.name for row in rows})
    others = [folder for folder in folders if plain(folder) != folder]
    return [f"taken for {', '.join(map(plain, others))}: {', '.join(others)}"] if others else []


def in_folders(
    names: Iterable[str],
    place: Place,
    is_wanted: Callable[[str], bool],
    suffixes: tuple[str, ...],
    *,
    fold_case: bool,
) -> tuple[list[str], list[LeftOut]]:
    """Returns the names (without the root, sorted by folder and file) directly in wanted folders, and the rest."""
    chosen, left_out = [], []
    for name in names:
        folder, file = place.folder_of(name), name.rpartition("/")[2]
        compared = file.lower() if fold_case else file
        if folder is None or not is_wanted(folder):
            left_out.append(LeftOut(name, "", OTHER_FOLDER))
        elif not compared.endswith(suffixes):
            left_out.append(LeftOut(name, "", WRONG_SUFFIX, PurePosixPath(file).suffix))
        elif name in place.copies:
            left_out.append(LeftOut(name, "", SAME_FILE, place.copies[name]))
        else:
            chosen.append(name.removeprefix(place.root))
    return sorted(chosen, key=lambda name: name.split("/")), left_out


def split(
    rows: Sequence[Row], place: Place, left_out: list[LeftOut], stratify: Sequence[int] | None = None
) -> Selection:
    """Returns the rows in two splits, drawn as the baseline draws them, with what there is to note about the place.

    Raises:
      LayoutError: there are too few.
    """
    from sklearn.model_selection import train_test_split  # takes a second to import

    try:
        train, val = train_test_split(
            np.arange(len(rows)), test_size=VAL_FRACTION, stratify=stratify, random_state=SPLIT_SEED
        )
    except ValueError as error:
        raise LayoutError(f"too few pictures to split ({error})") from error
    splits: dict[SplitName, list[Row]] = {"train": [rows[n] for n in train], "val": [rows[n] for n in val]}
    return Selection(splits, left_out, place.root, [*place.notes, *_respelled(rows)])
