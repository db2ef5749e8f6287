"""The glasses data set, as the PyTorch baseline selects it."""

from __future__ import annotations

from pathlib import Path

from facefeat_jax.data import selection
from facefeat_jax.data._listing import content_of, find, text_of
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import Selection
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
        chosen = selection.glasses(tree.files(), known, content_of(tree))
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
