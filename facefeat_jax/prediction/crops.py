"""From a face's box to the part of the picture that a head was trained on.

A head has learned from pictures that were framed in one way: FairFace's are cut closely around the face, those of the
glasses set show the head, shop photographs a person down to the hips. A frame says where such a picture lies around a
face; how they were measured: docs/benchmarks/crops.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from facefeat_jax.data._decoder_limits import MAX_PIXELS, MAX_SIDE
from facefeat_jax.data._frames import FRAMES as FRAMES
from facefeat_jax.data._frames import WHOLE as WHOLE
from facefeat_jax.data._frames import Box as Box

_BAND_PIXELS = 2**20  # filled at a time


@dataclass(frozen=True)
class Person:
    """Who a prediction is about.

    Attributes:
      number: from 1, in the order of the boxes.
      face: the box of the face, in pixels.
      note: a remark (a box that reaches outside, a part that is not in the picture), or empty.
    """

    number: int
    face: Box
    note: str = ""


def place(size: tuple[int, int], face: Box, frame: str) -> tuple[int, int, int, int] | None:
    """Returns where a crop lies in a picture of that width and height: left, top, right, bottom; it may reach outside.

    Args:
      size: width and height of the picture.
      face: its box.
      frame: a name in `FRAMES`.

    Returns:
      The place, or None where too little of it is in the picture, or where the box is so large that the crop would be
      larger than any picture that is read.
    """
    wanted = FRAMES[frame].around(face)
    if wanted.within(size) is None or size[1] < (face.top + face.bottom) / 2 + FRAMES[frame].needs * face.height:
        return None
    # Of a box that somebody wrote, not of one that was found.
    if not (wanted.width * wanted.height <= MAX_PIXELS and max(wanted.width, wanted.height) <= MAX_SIDE):
        return None
    left, top = round(wanted.left), round(wanted.top)
    return left, top, max(left + 1, round(wanted.right)), max(top + 1, round(wanted.bottom))


def crop(picture: Image.Image, face: Box, frame: str) -> Image.Image | None:
    """Returns what a head with that frame is to look at.

    What reaches outside the picture is filled with the picture's edge, so that the face keeps its place and size.

    Args:
      picture: RGB.
      face: its box.
      frame: a name in `FRAMES`, or `WHOLE`.

    Returns:
      The crop, or None where there is no `place` for it.
    """
    if frame == WHOLE:
        return picture
    found = place(picture.size, face, frame)
    if found is None:
        return None
    left, top, right, bottom = found
    width, height = picture.size
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return picture.crop(found)
    # Some rows at a time: the crop may be as large as a picture can be.
    made = Image.new("RGB", (right - left, bottom - top))
    first = max(left, 0)
    columns = np.arange(left, right).clip(0, width - 1) - first
    step = max(1, _BAND_PIXELS // made.width)
    for start in range(top, bottom, step):
        rows = np.arange(start, min(start + step, bottom)).clip(0, height - 1)
        band = np.asarray(picture.crop((first, int(rows[0]), min(right, width), int(rows[-1]) + 1)))
        made.paste(Image.fromarray(band[rows - rows[0]][:, columns]), (0, start - top))
    return made
