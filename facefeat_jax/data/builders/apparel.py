"""The apparel data set, as the PyTorch baseline selects it."""

from __future__ import annotations

from pathlib import Path

from facefeat_jax.data import selection
from facefeat_jax.data._listing import content_of
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import Selection
from facefeat_jax.data.sources import Source
from facefeat_jax.data.trees import Tree


class Apparel(PictureBuilder):
    """Writes the apparel data set; see `PictureBuilder`."""

    SOURCE = Source(
        name="apparel",
        version="1.0.0",
        tasks=("shirt",),
        groups=("garment",),
        description=(
            "Shop photographs of shirts, dresses, suits and hoodies, labelled by colour, split 80/20 as the "
            "PyTorch baseline does it, but from sorted names: the order in which the baseline's folders happened "
            "to be listed is lost."
        ),
        downloads=(("archive.zip", "https://www.kaggle.com/datasets/kaiska/apparel-dataset"),),
        homepage="https://www.kaggle.com/datasets/kaiska/apparel-dataset",
        terms="the terms on that page",
        layout="archive.zip, or its folders <colour>_<garment>/",
    )

    @classmethod
    def select(cls, tree: Tree, path: Path) -> Selection:
        return selection.apparel(tree.files(), content_of(tree))
