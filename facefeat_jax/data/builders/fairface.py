"""The fairface data set, as the PyTorch baseline selects it."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from facefeat_jax.data._listing import content_of, find, text_of
from facefeat_jax.data._roots import PICTURE_SUFFIXES, fairface_root
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import (
    BAD_ROW,
    BEYOND_QUOTA,
    NO_LABEL,
    NO_PICTURE,
    TWICE,
    UNKNOWN_CLASS,
    WRONG_SUFFIX,
    LayoutError,
    LeftOut,
    Row,
    Selection,
    SplitName,
)
from facefeat_jax.data.sources import Source
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.files import ByName, identity, spelled
from facefeat_jax.system.tables import TableRow, read_table

QUOTA: dict[SplitName, int] = {"train": 2400, "val": 600}
"""Rows of each race and gender that the baseline takes."""

_NO_TEXT = frozenset({"", "nan", "na", "n/a", "null", "none"})  # what pandas, the baseline's reader, takes for nothing

_AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69")  # FairFace's; and "more than 70"
_SERIALS = range(36_526, 73_050)  # what spreadsheets count the days of 2000 to 2099 as
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Fairface(PictureBuilder):
    """Writes the fairface data set; see `PictureBuilder`."""

    SOURCE = Source(
        name="fairface",
        version="1.0.0",
        tasks=("gender",),
        groups=("race", "age"),
        description=(
            "FairFace (margin 1.25), balanced as the PyTorch baseline does it: of each race and gender the first "
            "2,400 rows of the training labels and the first 600 of the validation labels."
        ),
        downloads=(
            (
                "fairface-img-margin125-trainval.zip (Padding=1.25)",
                "https://drive.google.com/file/d/1g7qNOZz9wC7OfOhcPqH1EZ5bk1UFGmlL",
            ),
            ("fairface_label_train.csv", "https://drive.google.com/file/d/1i1L3Yqwaio7YSOCj7ftgk8ZZchPG7dmH"),
            ("fairface_label_val.csv", "https://drive.google.com/file/d/1wOdja-ezstMEp81tX1a-EYkFebev4h7D"),
        ),
        homepage="https://github.com/joojs/fairface",
        terms="CC BY 4.0",
        layout="both csv beside the zip, or beside its folders train/ and val/",
        citation="""@inproceedings{karkkainen2021fairface,
  title={FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for Bias Measurement and Mitigation},
  author={Karkkainen, Kimmo and Joo, Jungseock},
  booktitle={Proceedings of the IEEE/CVF Winter Conference on Applications of Computer Vision},
  year={2021},
  pages={1548--1558}
}""",
    )

    @classmethod
    def select(cls, tree: Tree, path: Path) -> Selection:
        return select(_labels(tree, path), tree.files(), content_of(tree))


def _labels(tree: Tree, path: Path) -> Mapping[SplitName, Sequence[TableRow]]:
    labels: dict[SplitName, Sequence[TableRow]] = {}
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        wanted = f"fairface_label_{split}.csv"
        if not (name := find(tree, wanted, path)):
            raise LayoutError(f"no {wanted}")
        labels[split] = read_table(text_of(tree, name, path), f"{path}: {name}", ("file", "gender", "race"))
    return labels


def select(
    labels: Mapping[SplitName, Sequence[TableRow]],
    names: Collection[str] | None = None,
    content: Callable[[str], Hashable] | None = None,
) -> Selection:
    """Selects from FairFace's label tables: of each (race, gender) the first `QUOTA` rows in file order.

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
            elif taken[race, gender] >= QUOTA[split]:
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
        found = [(row, present.find(row.source_file)) for row in rows]
        selection.left_out += [
            LeftOut(row.source_file, split, NO_PICTURE, f"row {row.source_row}") for row, listed in found if not listed
        ]
        selection.rows[split] = [
            row if row.source_file == listed[0] else replace(row, source_file=listed[0])
            for row, listed in found
            if listed
        ]
        if rows and not selection.rows[split]:
            raise LayoutError(f"none of the {len(rows)} pictures of {split} exists, for example {rows[0].source_file}")
    if not wanted:
        raise LayoutError("its label files have no usable row (gender must be Male or Female)")
    for name in sorted(names):
        bare = name.removeprefix(selection.root)
        if identity(bare) not in named and bare.split("/")[0] in QUOTA:
            is_picture = bare.lower().endswith(PICTURE_SUFFIXES)
            selection.left_out.append(LeftOut(name, "", NO_LABEL if is_picture else WRONG_SUFFIX))


@lru_cache
def mended_age(age: str) -> str:
    """Undoes what spreadsheets do to FairFace's age ranges: `9-Mar` (or `Mar-09`, `03-Sep`) was `3-9`.

    So were `3/9/2024`, `2024-03-09`, and 45360, the number of that day.

    Returns:
      The range, or the text as it is where it is none of these.
    """
    text = "-".join(part.strip() for part in re.split("[-\u2010-\u2015\u2212]", age))  # hyphens and dashes
    if text in _AGES:
        return text
    if re.fullmatch(r"\d{5}", text) and int(text) in _SERIALS:
        text = (datetime.date(1899, 12, 30) + datetime.timedelta(int(text))).isoformat()
    if match := re.fullmatch(r"\d{4}-(\d{1,2})-(\d{1,2})(?:[ T]00:00(?::00)?)?", text):
        mended = _range(*match.groups())
    elif match := re.fullmatch(r"(\d{1,2})([/.])(\d{1,2})(?:\2(?:\d{4}|\d{2})?)?", text):
        mended = _range(match[1], match[3])
    else:
        parts = text.lower().split("-")
        numbers = [str(_MONTHS.index(part[:3]) + 1) if part[:3] in _MONTHS else part for part in parts]
        is_date = len(parts) == 2 and sum(number != part for number, part in zip(numbers, parts, strict=True)) == 1
        mended = _range(*numbers) if is_date else ""
    return mended or age


def _range(one: str, other: str) -> str:
    """Returns a range of two numbers, of at most two digits each, the lower first; nothing for other texts."""
    if not all(re.fullmatch(r"\d{1,2}", text, re.ASCII) for text in (one, other)):
        return ""
    low, high = sorted((int(one), int(other)))
    return f"{low}-{high}"
