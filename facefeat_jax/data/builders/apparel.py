"""The apparel data set, as the PyTorch baseline selects it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path, PurePosixPath

from facefeat_jax.data._listing import content_of
from facefeat_jax.data._roots import find_place
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.selection import (
    UNKNOWN_CLASS,
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
from facefeat_jax.tasks import SHIRT_CLASSES

GARMENTS = ("shirt", "dress", "suit", "hoodie")
"""What the name of a folder must hold for the baseline to take it."""


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
        return select(tree.files(), content_of(tree))


def select(names: Sequence[str], content: Callable[[str], Hashable] | None = None) -> Selection:
    """Selects from the apparel set: `.png`, `.jpg` and `.jpeg` (in any case) in folders of `GARMENTS`.

    The label is the colour: what precedes the `_` in the folder's name. Names are sorted by folder, then by file, since
    the order in which the baseline's folders were listed is lost; then comes the baseline's call:
    `train_testsplit(test_size=0.2, random_state=42)`, not stratified.

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
    chosen, left_out = in_folders(names, place, is_wanted, (".png", ".jpg", ".jpeg"), fold_case=True)
    rows: list[Row] = []
    for name in chosen:
        colour, _, garment = plain(PurePosixPath(name).parent.name).partition("_")
        if colour in SHIRT_CLASSES:
            rows.append(Row(name, len(rows), {"shirt": colour}, {"garment": garment}))
        else:
            left_out.append(LeftOut(place.root + name, "", UNKNOWN_CLASS, f"colour {colour!r}"))
    if len(rows) < 2:
        raise LayoutError("no two pictures in folders <colour>_<garment> with shirt, dress, suit or hoodie in the name")
    selection = split(rows, place, left_out)
    selection.notes.append("names sorted, then split 80/20, not stratified, seed 42")
    return selection
