"""Anybody's own pictures as a data set: class folders, or a table `file,label`; `facefeat prepare folder`.

What was prepared says what it is, in a file beside the records, so that later commands know the data set and its task.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from facefeat_jax.data import selection
from facefeat_jax.data._listing import text_of
from facefeat_jax.data._reasons import is_named_as_picture
from facefeat_jax.data._roots import HALVES
from facefeat_jax.data.builders import OWN, add_builder
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import LayoutError, LeftOut, Row, Selection, SplitName
from facefeat_jax.data.sources import Source
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import ByName
from facefeat_jax.system.kinds import FrameName
from facefeat_jax.system.tables import TableRow, read_table
from facefeat_jax.system.text import count
from facefeat_jax.tasks import TASKS, Task, add_task

_MOST_CLASSES = 1000
_MOST_GROUPS = 20
_TABLE = ("file", "label")
_SPLITS: dict[str, SplitName] = {name: "train" if name in ("train", "training") else "val" for name in sorted(HALVES)}


@dataclass(frozen=True)
class Own:
    """What somebody's own data set is.

    Attributes:
      name: of the data set.
      task: of the head that it trains.
      classes: class names in label order.
      groups: columns of its table, beside the label.
      group: the column whose values are kept in one split, or empty.
      frame: the part of a person that its pictures show.
      about_colour: whether a change of colour could change the label.
      table: name of the table beside the pictures; empty for any.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    group: str = ""
    frame: FrameName = "whole"
    about_colour: bool = False
    table: str = ""

    def known(self) -> type[FolderBuilder]:
        """Makes the data set and its task known to this process; returns its builder.

        Raises:
          UserError: the task or the data set exists, and is another one.
        """
        task = TASKS.get(self.task)
        if task is None or task.classes != self.classes:  # else more pictures for a task that is there
            task = add_task(Task(self.task, self.classes, frame=self.frame, about_colour=self.about_colour))
        source = Source(
            name=self.name,
            version="1.0.0",
            tasks=(task.name,),
            groups=self.groups,
            description="Somebody's own pictures, prepared with `facefeat prepare folder`.",
            terms="those of whoever owns the pictures",
            downloads=(("your pictures", "your disk"),),
            homepage="docs/add_a_data_set.md",
            layout="a folder for each class, or a CSV file with the columns file,label beside the pictures",
        )
        return add_builder(type("Own", (FolderBuilder,), {"SOURCE": source, "OWN": self}))


class FolderBuilder(PictureBuilder):
    """Writes somebody's own data set; see `PictureBuilder`."""

    OWN: ClassVar[Own]

    @classmethod
    def select(cls, tree: Tree, path: Path) -> Selection:
        chosen = _select(tree, path, cls.OWN.group, cls.OWN.table)
        for split, rows in chosen.rows.items():
            chosen.rows[split] = [replace(row, labels={cls.OWN.task: row.labels[""]}) for row in rows]
        return chosen

    @classmethod
    def files_beside(cls) -> dict[str, str]:
        return {OWN: json.dumps(asdict(cls.OWN), indent=2) + "\n"}


def find_own(tree: Tree, path: Path, *, name: str, task: str, **others: Any) -> Own:
    """Looks at pictures and says what data set they make.

    Args:
      tree: the pictures.
      path: where they are, for messages.
      name: of the data set.
      task: of the head.
      **others: further fields of `Own`.

    Raises:
      UserError: they are in neither of the two forms, or a name can't be used.
    """
    for what, text in (("--name", name), ("--task", task)):
        if not text.isidentifier() or not text.isascii():
            raise UserError(f"{what} must be letters, digits and _, got {text!r:.60}")
    try:
        chosen = _select(tree, path, others.get("group", ""), others.get("table", ""))
    except LayoutError as error:
        raise UserError(f"{path}: {error}") from error
    rows = [row for of_split in chosen.rows.values() for row in of_split]
    found = sorted({row.labels[""] for row in rows})
    if not 2 <= len(found) <= _MOST_CLASSES:
        some = ", ".join(found[:3])
        raise UserError(f"{path}: a task has 2 to {_MOST_CLASSES:,} classes, this has {len(found):,} ({some:.60})")
    if task in TASKS and set(TASKS[task].classes) == set(found):
        found = list(TASKS[task].classes)
    elif len(found) == 2 and found[1].lower().startswith(("no", "without")):
        found.reverse()  # the second of two classes is the one that is looked for
    return Own(name, task, tuple(found), tuple(rows[0].groups), **others)


def read_own(path: Path) -> Own:
    """Reads the description beside the records of a data set.

    Raises:
      UserError: it can't be read.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return Own(**fields)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} can't be read ({error}); prepare the data set again") from error


def _select(tree: Tree, path: Path, group: str, table: str) -> Selection:
    """Selects by the table at the top, where there is one, else by the folders; the label's name is empty."""
    root, names = _below_wrapping(tree.files())
    tables = [table] if table else [name for name in names if "/" not in name and name.lower().endswith(".csv")]
    if len(tables) > 1:
        raise LayoutError(f"there are several tables, {' and '.join(tables[:3])}; give the path of one as --from")
    if tables:
        rows = read_table(text_of(tree, root + tables[0], path), f"{path}: {tables[0]}", _TABLE)
        chosen = _of_table(rows, names, group.lower())
    elif group:
        raise LayoutError(f"--group {group} names a column of a CSV file with {','.join(_TABLE)}, and there is none")
    else:
        chosen = _of_folders(names)
    chosen.root = root
    return chosen


def _below_wrapping(names: Sequence[str]) -> tuple[str, list[str]]:
    """Returns what precedes all names because somebody packed a folder, and the names without it."""
    root, below = "", list(names)
    while below and all("/" in name for name in below) and len({name.partition("/")[0] for name in below}) == 1:
        inner = [name.partition("/")[2] for name in below]
        if not any("/" in name or name.lower().endswith(".csv") for name in inner):
            break  # a single class
        root += below[0].partition("/")[0] + "/"
        below = inner
    return root, below


def _of_table(rows: Sequence[TableRow], names: Sequence[str], group: str) -> Selection:
    columns = [name for row in rows[:1] for name in row.values if name not in (*_TABLE, "split")]
    if group and group not in columns:
        raise LayoutError(f"--group {group}: there is no such column beside {', '.join(columns) or 'file and label'}")
    if len(columns) > _MOST_GROUPS:
        raise LayoutError(f"{len(columns)} columns beside file and label, at most {_MOST_GROUPS} are used; remove some")
    present: ByName[str] = ByName()
    for name in names:
        present.add(name, name)
    kept: list[Row] = []
    splits: list[str] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for row in rows:
        where = f"row {row.number}"
        listed = row.values.get("file", "").replace("\\", "/")
        found = present.find(listed) if listed else []
        if row.problem or not listed or not row.values["label"]:
            left_out.append(LeftOut(listed, "", selection.BAD_ROW, f"{where}: {row.problem or 'no file or no label'}"))
        elif not found:
            left_out.append(LeftOut(listed, "", selection.NO_PICTURE, where))
        elif found[0] in seen:
            left_out.append(LeftOut(listed, "", selection.TWICE, where))
        else:
            seen.add(found[0])
            groups = {name: row.values[name] for name in columns}
            kept.append(Row(found[0], row.number, {"": row.values["label"]}, groups))
            splits.append(row.values.get("split", ""))
    left_out += [
        LeftOut(name, "", selection.NO_LABEL) for name in names if name not in seen and is_named_as_picture(name)
    ]
    if not kept:
        raise LayoutError(f"none of the {count(len(rows), 'row')} of the table is for a picture that is there")
    return _in_splits(kept, splits, left_out, group)


def _of_folders(names: Sequence[str]) -> Selection:
    kept: list[Row] = []
    splits: list[str] = []
    left_out: list[LeftOut] = []
    for name in names:
        folders = name.split("/")[:-1]
        split = folders.pop(0) if len(folders) > 1 and folders[0].lower() in _SPLITS else ""
        if folders and is_named_as_picture(name):
            kept.append(Row(name, len(kept), {"": folders[0]}, {}))
            splits.append(split)
        else:
            left_out.append(LeftOut(name, "", selection.OTHER_FOLDER if not folders else selection.WRONG_SUFFIX))
    if not kept:
        raise LayoutError("neither a CSV file with the columns file,label nor a folder for each class with pictures")
    return _in_splits(kept, splits, left_out, "")


def _in_splits(kept: list[Row], splits: list[str], left_out: list[LeftOut], group: str) -> Selection:
    """Returns the selection: split as the data say, else a fifth of each class, or of the groups, to validate on."""
    unknown = sorted({split for split in splits if split and split.lower() not in _SPLITS})
    if unknown:
        raise LayoutError(f"unknown split {unknown[0]!r:.60}; use train and val")
    rows: dict[SplitName, list[Row]] = {"train": [], "val": []}
    if all(splits):
        for row, split in zip(kept, splits, strict=True):
            rows[_SPLITS[split.lower()]].append(row)
        note = "split as the data say"
    elif any(splits):
        raise LayoutError("some of the pictures are in a split and others are not; give all of them one, or none")
    else:
        held = _held_groups(kept, group) if group else _held_of_classes(kept)
        for row in kept:
            rows["val" if row.source_file in held else "train"].append(row)
        by = f"pictures of one {group} in one split" if group else "stratified, by the names of the files"
        note = f"split 80/20, {by}"
    for split, of_split in rows.items():
        if not of_split:
            raise LayoutError(f"no picture is left for {split}; {'there are too few groups' if group else 'add some'}")
    if not group and any("identity" in row.groups or "person" in row.groups for row in kept[:1]):
        note += "; --group keeps the pictures of a person in one split"
    return Selection(rows, left_out, notes=[note])


def _held_of_classes(kept: Sequence[Row]) -> set[str]:
    by_class: dict[str, list[str]] = defaultdict(list)
    for row in kept:
        by_class[row.labels[""]].append(row.source_file)
    if few := [name for name, files in by_class.items() if len(files) < 2]:
        raise LayoutError(f"class {few[0]!r:.60} has a single picture; two are needed, to train and to validate")
    held: set[str] = set()
    for files in by_class.values():
        held |= set(sorted(files, key=_order)[: max(1, round(selection.VAL_FRACTION * len(files)))])
    return held


def _held_groups(kept: Sequence[Row], group: str) -> set[str]:
    """Returns the files of whole groups, a fifth of the pictures; a picture without a group is one of its own."""
    groups = {row.source_file: row.groups[group] or row.source_file for row in kept}
    sizes: Mapping[str, int] = Counter(groups.values())
    held: set[str] = set()
    taken = 0
    for name in sorted(sizes, key=_order):
        if taken + sizes[name] / 2 <= selection.VAL_FRACTION * len(kept) or not held:
            held.add(name)
            taken += sizes[name]
    return {file for file, name in groups.items() if name in held}


def _order(name: str) -> str:
    """Returns a key that mixes names, the same on every machine, and of the others unchanged where some are added."""
    return hashlib.sha256(f"{selection.SPLIT_SEED} {name}".encode()).hexdigest()
