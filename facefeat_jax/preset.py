"""The pixels that published weights were evaluated on: torchvision's preset, with Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from facefeat_jax.errors import unknown
from facefeat_jax.models.published import WEIGHTS, PublishedWeights


def preset(weights: str) -> PublishedWeights:
    """Returns the facts of published weights: `image_size`, `resize`, `interpolation`, `mean`, `std` and the rest.

    Args:
      weights: a name in `facefeat_jax.models.published.WEIGHTS`; `facefeat models NAME` lists them.

    Raises:
      UserError: there are none of that name.
    """
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    return WEIGHTS[weights]


def preset_pixels(picture: Image.Image, weights: str) -> np.ndarray:
    """Resizes and crops a picture as torchvision does for those weights, to reproduce their published accuracy.

    The recipes of this project don't: they keep the whole picture and not its proportions. What follows is
    `normalize(pixels, mean=preset(weights).mean, std=preset(weights).std)`.

    Args:
      picture: of any mode; it is converted to RGB as `torchvision.datasets` does.
      weights: as in `preset`.

    Returns:
      uint8 `[image_size, image_size, 3]`.

    Raises:
      UserError: there are no such weights.
    """
    entry = preset(weights)
    picture = picture.convert("RGB")
    width, height = picture.size
    # The shorter side becomes `resize`, the longer one is rounded down.
    short, long = sorted((width, height))
    longer = int(entry.resize * long / short)
    size = (entry.resize, longer) if width <= height else (longer, entry.resize)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling[entry.interpolation.upper()])
    left, top = (round((side - entry.image_size) / 2.0) for side in size)
    return np.asarray(picture.crop((left, top, left + entry.image_size, top + entry.image_size)))
