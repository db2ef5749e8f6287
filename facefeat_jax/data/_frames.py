"""How the pictures of each kind of data set are framed around a face; measured in docs/benchmarks/crops.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

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

    @property
    def has_area(self) -> bool:
        """Whether left is below right and top below bottom, by numbers that are finite."""
        return math.isfinite(self.width) and math.isfinite(self.height) and self.width > 0 and self.height > 0

    def scaled(self, width: float, height: float) -> Box:
        """Returns a box of shares in pixels of a picture of that width and height."""
        return Box(self.left * width, self.top * height, self.right * width, self.bottom * height)

    def within(self, size: tuple[int, int]) -> Box | None:
        """Returns the part inside a picture of that width and height; None where less than a pixel is."""
        width, height = size
        cut = Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height))
        return cut if cut.width >= 1 and cut.height >= 1 else None

    def __str__(self) -> str:
        return f"{self.left:.0f},{self.top:.0f},{self.right:.0f},{self.bottom:.0f}"


@dataclass(frozen=True)
class Frame:
    """Where a crop lies around a face: in widths and heights of the face's box, from its centre."""

    left: float  # how far to the left
    top: float  # how far up
    right: float  # how far to the right
    bottom: float  # how far down
    needs: float = 0.0  # how far down the picture has to reach at least; a crop that shows less says nothing

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

FACES = ("face", "head")
"""The frames whose pictures show a face and little else."""


def inside(outer: str, inner: str) -> tuple[float, float, float, float] | None:
    """Returns where pictures of one frame lie in pictures of another: left, top, right, bottom, as shares of its sides.

    None where either is no frame around a face, or `inner` reaches outside `outer`.
    """
    if not {outer, inner} <= FRAMES.keys():
        return None
    face = Box(-0.5, -0.5, 0.5, 0.5)
    whole, part = FRAMES[outer].around(face), FRAMES[inner].around(face)
    left, right = (part.left - whole.left) / whole.width, (part.right - whole.left) / whole.width
    top, bottom = (part.top - whole.top) / whole.height, (part.bottom - whole.top) / whole.height
    return (left, top, right, bottom) if min(left, top) >= 0 and max(right, bottom) <= 1 else None
