"""RandAugment: each operation against Pillow's, the drawing, and pictures with a label about a colour."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from facefeat_jax.training.rand_augment import COLOUR, GEOMETRIC, rand_augmented

FILL = (0.2, 0.4, 0.6)
PAINT = (51, 102, 153)
# Blends may be contracted to one rounding, and Pillow's table of autocontrast is computed in float64.
ONE_LEVEL = {"Color", "Contrast", "Sharpness", "AutoContrast"}


def by_pillow(name: str, picture: Image.Image, strength: float) -> Image.Image:
    """Applies an operation as torchvision's RandAugment does to a PIL image; `strength` has a sign."""
    width, height = picture.size

    def moved(*matrix: float) -> Image.Image:
        return picture.transform(picture.size, Image.AFFINE, matrix, Image.NEAREST, fillcolor=PAINT)

    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return getattr(ImageEnhance, name)(picture).enhance(1 + 0.9 * strength)
    return {
        "Identity": lambda: picture,
        "ShearX": lambda: moved(1, 0.3 * strength, 0, 0, 1, 0),
        "ShearY": lambda: moved(1, 0, 0, 0.3 * strength, 1, 0),
        "TranslateX": lambda: moved(1, 0, -int(150 / 331 * width * strength), 0, 1, 0),
        "TranslateY": lambda: moved(1, 0, 0, 0, 1, -int(150 / 331 * height * strength)),
        "Rotate": lambda: picture.rotate(30 * strength, Image.NEAREST, fillcolor=PAINT),
        "Posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * abs(strength))),
        "Solarize": lambda: ImageOps.solarize(picture, 255 * (1 - abs(strength))),
        "AutoContrast": lambda: ImageOps.autocontrast(picture),
        "Equalize": lambda: ImageOps.equalize(picture),
    }[name]()


@pytest.mark.parametrize(
    ("magnitude", "size"),
    [(9, (33, 21)), *(pytest.param(m, (224, 160), marks=pytest.mark.slow) for m in (1, 9, 17, 30))],
)
def test_operations_are_pillows(magnitude: int, size: tuple[int, int]) -> None:
    stream = np.random.RandomState(0)
    # Not all levels, and more dark ones than light: else autocontrast and equalize would do nothing.
    pixels = (stream.randint(20, 240, (*size[::-1], 3)) * stream.uniform(0.4, 1, (*size[::-1], 1))).astype(np.uint8)
    operations = {name: make(magnitude / 30, FILL) for name, make in (GEOMETRIC | COLOUR).items()}

    @jax.jit
    def everything(picture, sign):
        return {name: operation(picture, sign) for name, operation in operations.items()}

    for sign in (1.0, -1.0):
        found = everything(jnp.asarray(pixels, jnp.int32), jnp.float32(sign))
        for name, picture in found.items():
            expected = np.asarray(by_pillow(name, Image.fromarray(pixels), sign * magnitude / 30)).astype(int)
            difference = np.abs(np.asarray(picture) - expected)
            assert difference.max() <= (name in ONE_LEVEL), name
            assert (difference > 0).mean() < 0.06, name
            assert name == "Identity" or magnitude < 9 or (expected != pixels).any(), name


def test_pictures_with_a_colour_label_are_moved_only() -> None:
    """Their pixels are of the picture, or of the colour of empty places; the others get new colours."""
    colours = np.array([[10, 200, 30], [90, 90, 250], [240, 240, 20]], np.uint8)
    images = colours[np.random.RandomState(0).randint(0, 3, (200, 8, 8))]
    labels = {
        "shirt": jnp.where(jnp.arange(200) < 100, 3, -1).astype(jnp.int32),
        "gender": jnp.ones(200, jnp.int32),
    }
    change = jax.jit(lambda key: rand_augmented(jnp.asarray(images), labels, key, 9, FILL))
    found = np.asarray(change(jax.random.key(0)))
    known = np.concatenate([colours, [PAINT]])
    is_known = (found[..., None, :] == known).all(axis=-1).any(axis=-1)
    assert is_known[:100].all()
    assert (found[:100] != images[:100]).any(axis=(1, 2, 3)).mean() > 0.8
    new = ~is_known[100:].all(axis=(1, 2))
    assert 0.5 < new.mean() < 1
    np.testing.assert_array_equal(found, change(jax.random.key(0)))
    assert not np.array_equal(found, change(jax.random.key(1)))
