"""The glasses data set, as the PyTorch baseline selects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from facefeat_jax.data._listing import content_of, find, text_of
from facefeat_jax.data._roots import find_place
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import (
    SPLIT_SEED,
    WRONG_SUFFIX,
    LayoutError,
    LeftOut,
    Row,
    Selection,
    in_folders,
    plain,
    split,
)
from facefeat_jax.data.sources import Source
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.files import identity
from facefeat_jax.system.tables import TableRow, read_table


class Glasses(PictureBuilder):
    """Writes the glasses data set; see `PictureBuilder`."""

    SOURCE = Source(
        name="glasses",
        version="1.0.0",
        tasks=("glasses",),
        groups=("gender", "identity"),
        description=(
            "People with and without glasses, split 80/20, stratified, as the PyTorch baseline does it, but from "
            "sorted names: the order in which the baseline's folders happened to be listed is lost."
        ),
        downloads=(
            ("archive.zip", "https://www.kaggle.com/datasets/saramhai/people-with-and-without-glasses-dataset"),
        ),
        homepage="https://www.kaggle.com/datasets/saramhai/people-with-and-without-glasses-dataset",
        terms="the terms on that page",
        layout="archive.zip, or its folders Images/glasses/ and Images/no_glasses/",
    )

    @classmethod
    def select(cls, tree: Tree, path: Path) -> Selection:
        rows = _attributes(tree, path)
        usable = [row for row in rows if not row.problem]
        known = {
            identity("/".join(row.values["file"].replace("\\", "/").split("/")[-2:])): row.values for row in usable
        }
        chosen = select(tree.files(), known, content_of(tree))
        if bad := [row for row in rows if row.problem]:
            first = f"line {bad[0].line}: {bad[0].problem}"
            chosen.notes.append(f"{len(bad):,} of the {len(rows):,} rows of attributes can't be read, such as {first}")
        if twice := len(usable) - len(known):
            chosen.notes.append(f"{twice:,} of the rows of attributes are for a picture that has one: the last counts")
        return chosen


def _attributes(tree: Tree, path: Path) -> list[TableRow]:
    """Returns the rows of an `attributes.csv` beside the pictures; none where there is no such file."""
    if not (name := find(tree, "attributes.csv", path)):
        return []
    return read_table(text_of(tree, name, path), f"{path}: {name}", ("file",))


def select(
    names: Sequence[str],
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    content: Callable[[str], Hashable] | None = None,
) -> Selection:
    """Selects from the glasses set: `.jpg` and `.png` (case-sensitive) in folders `glasses` and `no_glasses`.

    Names are sorted first, since the order in which the baseline's folders were listed is lost; then come its own
    calls: shuffled as `DataFrame.sample(frac=1, random_state=42)`, split by scikit-learn's
    `train_testsplit(test_size=0.2, stratify=labels, random_state=42)`.

    Args:
      names: the listing.
      attributes: by `files.identity` of `folder/file` what else is known: `gender`, `identity`.
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
    chosen, left_out = in_folders(names, place, is_wanted, (".jpg", ".png"), fold_case=False)
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
    stratify = [int(row.labels["glasses"] == "glasses") for row in shuffled]
    selection = split(shuffled, place, left_out, stratify)
    selection.notes.append("names sorted, then shuffled and split 80/20, stratified, both with seed 42")
    if unmatched:
        rows_of = f"{len(unmatched):,} of the {len(attributes):,} rows of attributes"
        selection.notes.append(f"{rows_of} are for no picture of the set, such as {next(iter(unmatched))}")
    return selection


def _of_other_suffixes(left_out: Iterable[LeftOut]) -> str:
    """Returns, for a message, which suffixes were left out."""
    suffixes = Counter(left.detail for left in left_out if left.reason == WRONG_SUFFIX)
    found = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(5))
    return f"; suffixes are compared with their case, and others are there: {found}" if found else ""
