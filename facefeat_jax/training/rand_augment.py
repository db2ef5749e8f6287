"""RandAugment on the device (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719), with the operations of torchvision.

Each operation computes what Pillow does, on integers where Pillow does: shears, translations, rotation, posterize,
solarize, equalize, and the other side of a blend are equal; blends and autocontrast may differ by one of 255 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from facefeat_jax.tasks import TASKS

Picture = Int[jax.Array, "height width 3"]  # int32 in [0, 255]
Sign = Float[jax.Array, ""]  # 1 or -1

NUM_OPERATIONS = 2  # of each picture, as torchvision's default
MAX_MAGNITUDE = 30
# Pillow's weights of a grey level, in 65536ths.
_LUMA = (19595, 38470, 7471)


def rand_augmented(
    images: UInt8[jax.Array, "batch height width 3"],
    labels: Mapping[str, jax.Array],
    key: jax.Array,
    magnitude: int,
    fill: Sequence[float],
) -> UInt8[jax.Array, "batch height width 3"]:
    """Applies two operations to each picture, drawn from torchvision's fourteen.

    For a picture with a label about a colour, they are drawn from the six that move pixels only (`GEOMETRIC`): the
    label stays right, and the picture still counts for its head.

    Args:
      images: `[batch, height, width, 3]`, uint8.
      labels: by task `[batch]`, int32; negative: unknown.
      key: random key of the operations and their signs.
      magnitude: from 0 to 30, as torchvision's; 9 is usual.
      fill: colour of what a moved picture leaves empty, RGB in [0, 1].

    Returns:
      As `images`.
    """
    operations = [make(magnitude / MAX_MAGNITUDE, fill) for make in (GEOMETRIC | COLOUR).values()]
    choices = jnp.where(has_colour_label(labels, len(images)), len(GEOMETRIC), len(operations))

    def one(picture: Picture, choices: jax.Array, key: jax.Array) -> Picture:
        def layer(number: jax.Array, picture: Picture) -> Picture:
            choice_key, sign_key = jax.random.split(jax.random.fold_in(key, number))
            chosen = jax.random.randint(choice_key, (), 0, choices)
            return jax.lax.switch(chosen, operations, picture, jax.random.rademacher(sign_key, (), jnp.float32))

        # A loop, so that the operations are compiled once.
        return jax.lax.fori_loop(0, NUM_OPERATIONS, layer, picture)

    keys = jax.random.split(key, len(images))
    return jax.vmap(one)(images.astype(jnp.int32), choices, keys).astype(jnp.uint8)


def has_colour_label(labels: Mapping[str, jax.Array], count: int) -> jax.Array:
    """Returns which of the pictures have a label that a change of colour would make wrong: `[count]`, bool."""
    found = jnp.zeros(count, bool)
    for task, values in labels.items():
        if task in TASKS and TASKS[task].about_colour:
            found |= values >= 0
    return found


def moved(picture: Picture, matrix: jax.Array, fill: Sequence[float]) -> Picture:
    """Returns the picture moved: Pillow's `transform` with AFFINE and NEAREST, which computes in 65536ths of a pixel.

    Args:
      picture: the picture.
      matrix: `fixed_point` of a matrix.
      fill: colour of places outside, RGB in [0, 1].
    """
    height, width, _ = picture.shape
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    x = (matrix[2] + matrix[0] * columns + matrix[1] * rows) >> 16
    y = (matrix[5] + matrix[3] * columns + matrix[4] * rows) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    paint = jnp.asarray([round(255 * value) for value in fill], picture.dtype)
    found = picture[y.clip(0, height - 1), x.clip(0, width - 1)]
    return jnp.where(inside[..., None], found, paint[None, None])


def fixed_point(matrix: Sequence[float]) -> np.ndarray:
    """Returns a matrix that maps places of the result to places of the picture, for `moved`: `[6]`, int32."""
    a, b, c, d, e, f = matrix
    # Of the centre of the first pixel.
    values = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return np.asarray([math.floor(value * 65536 + 0.5) for value in values], np.int32)


def rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Returns the matrix of a rotation around the centre, counter-clockwise."""
    angle = -math.radians(degrees)
    cos, sin, x, y = math.cos(angle), math.sin(angle), width / 2, height / 2
    return (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def grey(picture: Picture) -> Picture:
    """Returns grey levels `[height, width, 1]`, rounded as Pillow's conversion to `L`."""
    red, green, blue = (weight * picture[..., channel] for channel, weight in enumerate(_LUMA))
    return ((red + green + blue + 0x8000) >> 16)[..., None]


def smoothed(picture: Picture) -> Picture:
    """Returns Pillow's `ImageFilter.SMOOTH`: the mean of nine pixels, the middle one five times; borders stay."""
    height, width, _ = picture.shape
    if height < 3 or width < 3:
        return picture
    total = 4 * picture[1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total = total + picture[row : row + height - 2, column : column + width - 2]
    return picture.at[1:-1, 1:-1].set((2 * total + 13) // 26)


def blended(other: Picture, picture: Picture, factor: jax.Array) -> Picture:
    """Returns Pillow's `Image.blend`: 0 gives the other one, 1 the picture, more extrapolates; decimals are cut."""
    start, difference = (jnp.broadcast_to(other, picture.shape), picture - other)
    found = start.astype(jnp.float32) + factor * difference.astype(jnp.float32)
    return found.clip(0, 255).astype(picture.dtype)


def mean_grey(picture: Picture) -> Picture:
    """Returns the picture's mean grey level, rounded: `[1, 1, 1]`."""
    levels = grey(picture).astype(jnp.uint32)
    return ((jnp.sum(levels) + levels.size // 2) // levels.size).astype(picture.dtype).reshape(1, 1, 1)


def autocontrast(picture: Picture) -> Picture:
    """Returns Pillow's `ImageOps.autocontrast`: each channel stretched from 0 to 255, unless it has one level."""
    low, high = picture.min(axis=(0, 1), keepdims=True), picture.max(axis=(0, 1), keepdims=True)
    stretched = (picture - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, stretched, picture)


def equalized(picture: Picture) -> Picture:
    """Returns Pillow's `ImageOps.equalize`: each channel with as even a histogram as its levels allow."""

    def channel(levels: jax.Array) -> jax.Array:
        counts = jnp.zeros(256, levels.dtype).at[levels].add(1)
        step = (levels.size - counts[levels.max()]) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, table[levels].clip(0, 255), levels)

    return jnp.stack([channel(picture[..., number]) for number in range(3)], axis=-1)


Operation = Callable[[Picture, Sign], Picture]
# From a strength in [0, 1] and the colour of empty places to the operation.
Maker = Callable[[float, Sequence[float]], Operation]


def _moving(matrix: Callable[[float, int, int], Sequence[float]]) -> Maker:
    """Makes an operation from the matrix for a signed strength, a height and a width."""

    def make(strength: float, fill: Sequence[float]) -> Operation:
        def operation(picture: Picture, sign: Sign) -> Picture:
            height, width, _ = picture.shape
            both = (fixed_point(matrix(signed, height, width)) for signed in (strength, -strength))
            positive, negative = map(jnp.asarray, both)
            return moved(picture, jnp.where(sign > 0, positive, negative), fill)

        return operation

    return make


def _blending(other: Callable[[Picture], Picture]) -> Maker:
    def make(strength: float, fill: Sequence[float]) -> Operation:
        return lambda picture, sign: blended(other(picture), picture, 1 + 0.9 * strength * sign)

    return make


def _posterize(strength: float, fill: Sequence[float]) -> Operation:
    return lambda picture, sign: picture & (256 - 2 ** round(4 * strength))


def _solarize(strength: float, fill: Sequence[float]) -> Operation:
    threshold = math.ceil(255 * (1 - strength))
    return lambda picture, sign: jnp.where(picture < threshold, picture, 255 - picture)


# By torchvision's names.
GEOMETRIC: dict[str, Maker] = {
    "Identity": lambda strength, fill: lambda picture, sign: picture,
    "ShearX": _moving(lambda signed, height, width: (1, 0.3 * signed, 0, 0, 1, 0)),
    "ShearY": _moving(lambda signed, height, width: (1, 0, 0, 0.3 * signed, 1, 0)),
    "TranslateX": _moving(lambda signed, height, width: (1, 0, -int(150 / 331 * width * signed), 0, 1, 0)),
    "TranslateY": _moving(lambda signed, height, width: (1, 0, 0, 0, 1, -int(150 / 331 * height * signed))),
    "Rotate": _moving(lambda signed, height, width: rotation(30 * signed, height, width)),
}
COLOUR: dict[str, Maker] = {
    "Brightness": _blending(jnp.zeros_like),
    "Color": _blending(grey),
    "Contrast": _blending(mean_grey),
    "Sharpness": _blending(smoothed),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": lambda strength, fill: lambda picture, sign: autocontrast(picture),
    "Equalize": lambda strength, fill: lambda picture, sign: equalized(picture),
}
