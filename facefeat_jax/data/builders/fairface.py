"""The fairface data set, as the PyTorch baseline selects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from facefeat_jax.data import selection
from facefeat_jax.data._listing import content_of, find, text_of
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import LayoutError, Selection, SplitName
from facefeat_jax.data.sources import Source
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.tables import TableRow, read_table


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
        return selection.fairface(_labels(tree, path), tree.files(), content_of(tree))


def _labels(tree: Tree, path: Path) -> Mapping[SplitName, Sequence[TableRow]]:
    labels: dict[SplitName, Sequence[TableRow]] = {}
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        wanted = f"fairface_label_{split}.csv"
        if not (name := find(tree, wanted, path)):
            raise LayoutError(f"no {wanted}")
        labels[split] = read_table(text_of(tree, name, path), f"{path}: {name}", ("file", "gender", "race"))
    return labels
