"""From a face's box to the part of the picture that a head was trained on.

A head has learned from pictures that were framed in one way: FairFace's are cut closely around the face, those of the
glasses set show the head, shop photographs a person down to the hips. A frame says where such a picture lies around a
face; how they were measured: docs/benchmarks/crops.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from facefeat_jax.data.images import MAX_PIXELS

WHOLE = "whole"


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in pixels from its upper left corner; `right` and `bottom` are not part of it."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels across."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels down."""
        return self.bottom - self.top

    def within(self, size: tuple[int, int]) -> Box | None:
        """Returns the part inside a picture of that width and height; None where less than a pixel is."""
        width, height = size
        cut = Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height))
        return cut if cut.width >= 1 and cut.height >= 1 else None

    def __str__(self) -> str:
        return f"{self.left:.0f},{self.top:.0f},{self.right:.0f},{self.bottom:.0f}"


@dataclass(frozen=True)
class Person:
    """Who a prediction is about.

    Attributes:
      number: from 1, in the order of the boxes.
      face: the box of the face, in pixels.
      note: what is to be said of it (a box that reaches outside, a part that is not in the picture), or empty.
    """

    number: int
    face: Box
    note: str = ""


@dataclass(frozen=True)
class Frame:
    """Where a crop lies around a face: in widths and heights of the face's box, from its centre.

    Attributes:
      left: how far to the left.
      top: how far up.
      right: how far to the right.
      bottom: how far down.
      needs: how far down the picture has to reach at least; a crop that shows less says nothing.
    """

    left: float
    top: float
    right: float
    bottom: float
    needs: float = 0.0

    def around(self, face: Box) -> Box:
        """Returns the crop's box, which may reach outside the picture."""
        x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
        return Box(
            x - self.left * face.width,
            y - self.top * face.height,
            x + self.right * face.width,
            y + self.bottom * face.height,
        )


FRAMES: dict[str, Frame] = {
    "face": Frame(0.52, 0.43, 0.54, 0.63),
    "head": Frame(0.85, 1.19, 0.86, 0.90),
    "upper_body": Frame(2.50, 0.92, 2.59, 4.09, needs=1.25),
}
"""How the pictures of each kind of set are framed; `WHOLE` is the picture as it is."""


def crop(picture: Image.Image, face: Box, frame: str) -> Image.Image | None:
    """Returns what a head with that frame is to look at.

    What reaches outside the picture is filled with the picture's edge, so that the face keeps its place and size.

    Args:
      picture: RGB.
      face: its box.
      frame: a name in `FRAMES`, or `WHOLE`.

    Returns:
      The crop, or None where too little of it is in the picture, or where the box is so large that the crop would be
      larger than any picture that is read.
    """
    if frame == WHOLE:
        return picture
    wanted = FRAMES[frame].around(face)
    width, height = picture.size
    if wanted.within(picture.size) is None or height < (face.top + face.bottom) / 2 + FRAMES[frame].needs * face.height:
        return None
    # Of a box that somebody wrote, not of one that was found.
    if not wanted.width * wanted.height <= MAX_PIXELS:
        return None
    left, top = round(wanted.left), round(wanted.top)
    right, bottom = max(left + 1, round(wanted.right)), max(top + 1, round(wanted.bottom))
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return picture.crop((left, top, right, bottom))
    inside = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    pixels = np.asarray(picture.crop(inside))
    margins = ((inside[1] - top, bottom - inside[3]), (inside[0] - left, right - inside[2]), (0, 0))
    return Image.fromarray(np.pad(pixels, margins, mode="edge"))
