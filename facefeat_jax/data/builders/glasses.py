"""The glasses data set, as the PyTorch baseline selects it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from facefeat_jax.data import selection
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.label_files import read_table
from facefeat_jax.data.listing import find, text_of
from facefeat_jax.data.selection import Selection
from facefeat_jax.data.sources import Source
from facefeat_jax.data.trees import Tree


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
        names = tree.files()
        return selection.glasses(names, _attributes(tree, names, path))


def _attributes(tree: Tree, names: Iterable[str], path: Path) -> dict[str, dict[str, str]]:
    """Returns what an `attributes.csv` beside the pictures says, by `folder/file`; nothing where there is none."""
    if not (name := find(names, "attributes.csv")):
        return {}
    rows = read_table(text_of(tree, name, path), f"{path}: {name}", ("file",))
    return {"/".join(row.values["file"].split("/")[-2:]): row.values for row in rows if not row.problem}
