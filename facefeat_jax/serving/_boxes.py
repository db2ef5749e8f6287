"""The boxes of faces that come with a request."""

from __future__ import annotations

import json
from typing import Any

from facefeat_jax.prediction.boxes import are_shares
from facefeat_jax.prediction.crops import Box

MOST = 100
"""Boxes in one request."""


class BoxesError(ValueError):
    """What came are not boxes; the message is one line for the client."""


def read_boxes(text: str, pictures: int) -> tuple[list[list[Box]], bool]:
    """Reads boxes from JSON: for each picture a list of `[left, top, right, bottom]`.

    Args:
      text: the JSON.
      pictures: number of pictures.

    Returns:
      The boxes of each picture, and whether they are shares of its width and height (by the rule of
      `prediction.boxes.read_boxes`, over all of them) instead of pixels.

    Raises:
      BoxesError: it is something else.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise BoxesError("boxes is not JSON; give a list for each picture: [[[left,top,right,bottom]]]") from None
    if not isinstance(values, list) or not all(isinstance(one, list) for one in values):
        raise BoxesError("boxes is not a list of lists; give a list for each picture: [[[left,top,right,bottom]]]")
    if len(values) != pictures:
        raise BoxesError(f"boxes holds {len(values)} lists for {pictures} pictures; give one list for each picture")
    if sum(map(len, values)) > MOST:
        raise BoxesError(f"boxes holds more than {MOST} boxes; send fewer at a time")
    boxes = [[_box(one) for one in of] for of in values]
    everything = [box for of in boxes for box in of]
    shares = are_shares(everything)
    if not shares and any(min(box.width, box.height) < 1 for box in everything):
        raise BoxesError("a box is less than a pixel wide or high; fractions from 0 to 1 and pixels can't be mixed")
    return boxes, shares


def _box(value: Any) -> Box:
    is_number = lambda one: isinstance(one, int | float) and not isinstance(one, bool)  # noqa: E731
    if not (isinstance(value, list) and len(value) == 4 and all(map(is_number, value))):
        raise BoxesError("a box is not four numbers; write [left,top,right,bottom]")
    try:
        box = Box(*map(float, value))
    except OverflowError:
        raise BoxesError("a box has a number that is too large") from None
    if not box.has_area:
        raise BoxesError("a box has no area; left must be below right, and top below bottom")
    return box
