"""What light and camera do to the drawing."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from facefeat_jax.avatars._dice import Dice
from facefeat_jax.avatars._parts import Light


def finish(image: Image.Image, light: Light, dice: Dice) -> Image.Image:
    """Returns the picture, lit and photographed: gradient, cast, exposure, contrast, blur, grain."""
    if light.blur:
        image = image.filter(ImageFilter.GaussianBlur(light.blur))
    pixels: np.ndarray = np.asarray(image, dtype=np.float32)
    along = np.linspace(-1.0, 1.0, pixels.shape[0], dtype=np.float32)
    across = math.cos(light.angle) * along[None, :] + math.sin(light.angle) * along[:, None]
    lit = (light.exposure * (1.0 - 0.5 * light.slope * (1.0 + across)))[..., None] * np.asarray(light.gains, np.float32)
    pixels = pixels * lit
    pixels = (pixels - 128.0) * np.float32(light.contrast) + 128.0
    # Grain of the light more than of the colours, as a sensor's is after its own noise reduction.
    pixels += (0.8 * light.grain) * dice.grain((*pixels.shape[:2], 1)) + (0.4 * light.grain) * dice.grain(pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
