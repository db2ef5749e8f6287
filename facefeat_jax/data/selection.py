"""Which pictures of a download are used, in which split, under which label: the PyTorch baseline's rules.

Pure functions of listings and label tables; files are opened only to tell copies from others, by the function that is
given for it. Every file is accounted for, used or left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from facefeat_jax.data._label_files import mended_age
from facefeat_jax.data._roots import PICTURE_SUFFIXES, Place, fairface_root, find_place
from facefeat_jax.system.files import ByName, identity, spelled
from facefeat_jax.system.tables import TableRow
from facefeat_jax.tasks import SHIRT_CLASSES

SplitName = Literal["train", "val"]

FAIRFACE_QUOTA: dict[SplitName, int] = {"train": 2400, "val": 600}
"""Rows of each race and gender that the baseline takes."""

GARMENTS = ("shirt", "dress", "suit", "hoodie")
"""What the name of a folder must hold for the baseline to take it."""

VAL_FRACTION = 0.2
SPLIT_SEED = 42

_NO_TEXT = frozenset({"", "nan", "na", "n/a", "null", "none"})  # what pandas, the baseline's reader, takes for nothing

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


def fairface(
    labels: Mapping[SplitName, Sequence[TableRow]],
    names: Collection[str] | None = None,
    content: Callable[[str], Hashable] | None = None,
) -> Selection:
    """Selects from FairFace's label tables: of each (race, gender) the first `FAIRFACE_QUOTA` rows in file order.

    The rows come out in file order, as `groupby(["race", "gender"]).head(n)` gives them in pandas; the set is the same
    whichever way the groups are put together. Rows that can't be used don't count towards the quota; a row within it
    whose picture is missing leaves the split that much short. Race is any text.

    Args:
      labels: the tables of both splits, with columns `file`, `gender`, `race` and, if known, `age`.
      names: the pictures' names as listed, or None to go by the tables alone.
      content: as in `_roots.find_place`.

    Returns:
      The selection; labels are `gender`, groups `race` and `age` (ages mangled by a spreadsheet are mended).

    Raises:
      LayoutError: there are names, and none of the selected pictures is among them.
      UserError: pictures of several margins are there.
    """
    selection = Selection({"train": [], "val": []})
    classes = {"male": "male", "female": "female"}
    named: set[str] = set()
    races: dict[str, str] = {}  # as they are spelled first
    for split, table in labels.items():
        taken: Counter[tuple[str, str]] = Counter()
        for line in table:

            def leave_out(reason: str, detail: str = "", line: TableRow = line, split: SplitName = split) -> None:
                where = f"row {line.number}" + (f": {detail}" if detail else "")
                selection.left_out.append(LeftOut(line.values.get("file", ""), split, reason, where))

            if line.problem:
                leave_out(BAD_ROW, line.problem)
                continue
            file, race = line.values["file"].replace("\\", "/"), line.values["race"]
            race = races.setdefault(race.casefold(), race)
            gender = classes.get(line.values["gender"].lower())
            if not file or file.startswith("/") or ".." in file.split("/"):
                leave_out(BAD_ROW, "no file name inside the set")
            elif identity(file) in named:
                leave_out(TWICE)
            elif race.casefold() in _NO_TEXT:
                leave_out(BAD_ROW, "no race")
            elif gender is None:
                leave_out(UNKNOWN_CLASS, f"gender {line.values['gender']!r}")
            elif taken[race, gender] >= FAIRFACE_QUOTA[split]:
                leave_out(BEYOND_QUOTA)
            else:
                taken[race, gender] += 1
                groups = {"race": race, "age": mended_age(line.values.get("age", ""))}
                selection.rows[split].append(Row(spelled(file), line.number, {"gender": gender}, groups))
            if file:
                named.add(identity(file))
    selection.notes.append("of each (race, gender) the first 2,400 rows of train and 600 of val, in file order")
    if names is not None:
        _match_pictures(selection, names, named, content)
    return selection


def glasses(
    names: Sequence[str],
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    content: Callable[[str], Hashable] | None = None,
) -> Selection:
    """Selects from the glasses set: `.jpg` and `.png` (case-sensitive) in folders `glasses` and `no_glasses`.

    Names are sorted first, since the order in which the baseline's folders were listed is lost; then come its own
    calls: shuffled as `DataFrame.sample(frac=1, random_state=42)`, split by scikit-learn's
    `train_test_split(test_size=0.2, stratify=labels, random_state=42)`.

    Args:
      names: the listing.
      attributes: by `file_names.identity` of `folder/file` what else is known: `gender`, `identity`.
      content: as in `_roots.find_place`.

    Returns:
      The selection; labels are `glasses`, groups `gender` and `identity`, blank where unknown. Gender is a group here:
      the baseline doesn't train its gender head on these pictures.

    Raises:
      LayoutError: a folder is missing or too small to be split.
      UserError: there are several such sets.
    """
    classes = ("glasses", "no_glasses")

    def is_wanted(folder: str) -> bool:
        return plain(folder) in classes

    place = find_place(
        names,
        is_wanted,
        content=content,
        is_whole=lambda folders: {plain(folder) for folder in folders} == set(classes),
    )
    chosen, left_out = _in_folders(names, place, is_wanted, (".jpg", ".png"), fold_case=False)
    attributes = attributes or {}
    rows = []
    unmatched = dict(attributes)
    last_parts = [identity("/".join(name.split("/")[-2:])) for name in chosen]
    counts = Counter(last_parts)
    for number, (name, last) in enumerate(zip(chosen, last_parts, strict=True)):
        known = attributes.get(last, {}) if counts[last] == 1 else {}  # in two halves: of one of them, unknown which
        unmatched.pop(last, None)
        groups = {
            "gender": {"male": "male", "female": "female"}.get(known.get("gender", "").lower(), ""),
            "identity": known.get("identity", ""),
        }
        rows.append(Row(name, number, {"glasses": plain(PurePosixPath(name).parent.name)}, groups))
    if lacking := [name for name in classes if sum(row.labels["glasses"] == name for row in rows) < 2]:
        raise LayoutError(f"no two .jpg or .png files in a folder {lacking[0]}/{_of_other_suffixes(left_out)}")
    shuffled = [rows[index] for index in np.random.RandomState(SPLIT_SEED).permutation(len(rows))]
    # Numbers, as in the baseline: scikit-learn draws class by class, in the order of the sorted labels.
    selection = _split(shuffled, stratify=[int(row.labels["glasses"] == "glasses") for row in shuffled])
    selection.root, selection.left_out = place.root, left_out
    selection.notes += [*place.notes, *_respelled(chosen)]
    selection.notes.append("names sorted, then shuffled and split 80/20, stratified, both with seed 42")
    if unmatched:
        rows_of = f"{len(unmatched):,} of the {len(attributes):,} rows of attributes"
        selection.notes.append(f"{rows_of} are for no picture of the set, such as {next(iter(unmatched))}")
    return selection


def apparel(names: Sequence[str], content: Callable[[str], Hashable] | None = None) -> Selection:
    """Selects from the apparel set: `.png`, `.jpg` and `.jpeg` (in any case) in folders of `GARMENTS`.

    The label is the colour: what precedes the `_` in the folder's name. Names are sorted by folder, then by file, since
    the order in which the baseline's folders were listed is lost; then comes the baseline's call:
    `train_test_split(test_size=0.2, random_state=42)`, not stratified.

    Args:
      names: the listing.
      content: as in `_roots.find_place`.

    Returns:
      The selection; labels are `shirt`, the group is `garment`. Pictures in folders of a colour that the task doesn't
      have are left out before the split.

    Raises:
      LayoutError: there is no such folder, or too few pictures to be split.
      UserError: there are several such sets.
    """

    def is_wanted(folder: str) -> bool:
        return any(garment in plain(folder) for garment in GARMENTS)

    def is_labelled(folder: str) -> bool:
        return is_wanted(folder) and plain(folder).partition("_")[0] in SHIRT_CLASSES

    place = find_place(names, is_labelled, content=content)
    chosen, left_out = _in_folders(names, place, is_wanted, (".png", ".jpg", ".jpeg"), fold_case=True)
    rows: list[Row] = []
    for name in chosen:
        colour, _, garment = plain(PurePosixPath(name).parent.name).partition("_")
        if colour in SHIRT_CLASSES:
            rows.append(Row(name, len(rows), {"shirt": colour}, {"garment": garment}))
        else:
            left_out.append(LeftOut(place.root + name, "", UNKNOWN_CLASS, f"colour {colour!r}"))
    if len(rows) < 2:
        raise LayoutError("no two pictures in folders <colour>_<garment> with shirt, dress, suit or hoodie in the name")
    selection = _split(rows, stratify=None)
    selection.root, selection.left_out = place.root, left_out
    selection.notes += [*place.notes, *_respelled(chosen)]
    selection.notes.append("names sorted, then split 80/20, not stratified, seed 42")
    return selection


def shared(values: Sequence[str] | np.ndarray, others: Iterable[str]) -> np.ndarray:
    """Returns which of `values` are among `others`: `[n]`, bool. Blank ones, which are unknown, are not."""
    known = set(others) - {""}
    return np.array([value in known for value in values], bool)


def _split(rows: Sequence[Row], stratify: Sequence[int] | None) -> Selection:
    from sklearn.model_selection import train_test_split  # takes a second to import

    try:
        train, val = train_test_split(
            np.arange(len(rows)), test_size=VAL_FRACTION, stratify=stratify, random_state=SPLIT_SEED
        )
    except ValueError as error:
        raise LayoutError(f"too few pictures to split ({error})") from error
    return Selection({"train": [rows[index] for index in train], "val": [rows[index] for index in val]})


def plain(folder: str) -> str:
    """Returns a folder's name as the sets spell it: in small letters, with `_` for blanks and hyphens."""
    return "_".join(re.split("[_ -]+", folder.strip().casefold()))


def _respelled(chosen: Iterable[str]) -> list[str]:
    """Returns a note where folders were taken whose names are spelled in another way."""
    folders = sorted({PurePosixPath(name).parent.name for name in chosen})
    others = [folder for folder in folders if plain(folder) != folder]
    return [f"taken for {', '.join(map(plain, others))}: {', '.join(others)}"] if others else []


def _of_other_suffixes(left_out: Iterable[LeftOut]) -> str:
    """Returns, for a message, which suffixes were left out."""
    suffixes = Counter(left.detail for left in left_out if left.reason == WRONG_SUFFIX)
    found = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(5))
    return f"; suffixes are compared with their case, and others are there: {found}" if found else ""


def _in_folders(
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


def _match_pictures(
    selection: Selection, names: Collection[str], named: set[str], content: Callable[[str], Hashable] | None
) -> None:
    """Drops FairFace rows without a picture, and accounts for pictures without a row."""
    selection.root, note = fairface_root(names, named, content)
    selection.notes += [note] if note else []
    present: ByName[str] = ByName()
    for name in names:
        if name.startswith(selection.root):
            present.add(name.removeprefix(selection.root), name.removeprefix(selection.root))
    wanted = sum(map(len, selection.rows.values()))
    for split, rows in selection.rows.items():
        selection.left_out += [
            LeftOut(row.source_file, split, NO_PICTURE, f"row {row.source_row}")
            for row in rows
            if not present.find(row.source_file)
        ]
        found = [(row, present.find(row.source_file)) for row in rows]
        selection.rows[split] = [replace(row, source_file=listed[0]) for row, listed in found if listed]
        if rows and not selection.rows[split]:
            raise LayoutError(f"none of the {len(rows)} pictures of {split} exists, for example {rows[0].source_file}")
    if not wanted:
        raise LayoutError("its label files have no usable row (gender must be Male or Female)")
    for name in sorted(names):
        bare = name.removeprefix(selection.root)
        if identity(bare) not in named and bare.split("/")[0] in FAIRFACE_QUOTA:
            is_picture = bare.lower().endswith(PICTURE_SUFFIXES)
            selection.left_out.append(LeftOut(name, "", NO_LABEL if is_picture else WRONG_SUFFIX))
