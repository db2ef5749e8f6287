"""Random changes to training pictures, inside jit: from a batch of uint8 pictures to a batch of uint8 pictures.

Everything random depends only on a key, so a step draws the same numbers with either feed and after resuming. The
arithmetic is float32 whatever the run's dtype. The result is rounded to pixels, as if the files had been changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from facefeat_jax.config import AugmentationConfig
from facefeat_jax.models._promotion import of_rank
from facefeat_jax.models.preprocessing import IMAGENET_MEAN
from facefeat_jax.training.rand_augment import has_colour_label, rand_augmented

# The share of the area that an erased rectangle covers, and its width over its height. As torchvision's RandomErasing,
# but smaller: a third of a face may contain the glasses and everything that shows the gender.
_ERASED_AREA = (0.02, 0.2)
_ERASED_RATIO = (0.3, 3.3)
# What a change folds into the step's key, so that each draws numbers of its own; 1 is the dropout's (`steps`).
_CROP, _COLOUR, _ERASE, _RAND_AUGMENT = 2, 3, 4, 6
MIX = 5  # (`mixing`)
# ITU-R 601, as in PIL and torchvision.
_LUMA = (0.299, 0.587, 0.114)


def augmented(
    images: jax.Array,
    labels: Mapping[str, jax.Array],
    key: jax.Array,
    config: AugmentationConfig,
    *,
    fill: Sequence[float] = IMAGENET_MEAN,
) -> jax.Array:
    """Returns the changed pictures.

    Args:
      images: `[batch, height, width, 3]`, uint8.
      labels: by task `[batch]`, int32; negative: unknown. They decide which pictures keep their colours.
      key: random key of all changes.
      config: what to change, and how much.
      fill: colour of erased rectangles, RGB in [0, 1].

    Returns:
      As `images`; these themselves where nothing is to be changed.
    """
    if config.flip:
        images = mirrored(images, key)
    if not (config.crop or config.rand_augment or config.colour_jitter or config.erase):
        return images
    # Compiled apart from what is before and after: fused with the gather of a `device` feed, the compiler may
    # contract other products, and a value half-way between two pixels would be rounded the other way.
    images, labels, key = jax.lax.optimization_barrier((images, dict(labels), key))
    pixels = images.astype(jnp.float32)
    if config.crop:
        pixels = cropped(pixels, jax.random.fold_in(key, _CROP), config.crop)
    if config.rand_augment:
        rounded, own_key = jnp.round(pixels).astype(jnp.uint8), jax.random.fold_in(key, _RAND_AUGMENT)
        pixels = rand_augmented(rounded, labels, own_key, config.rand_augment, fill).astype(pixels.dtype)
    if config.colour_jitter:
        changed = recoloured(pixels, jax.random.fold_in(key, _COLOUR), config.colour_jitter)
        pixels = sparing_colours(changed, pixels, labels)
    if config.erase:
        pixels = erased(pixels, jax.random.fold_in(key, _ERASE), config.erase, fill)
    return jax.lax.optimization_barrier(jnp.round(pixels.clip(0, 255)).astype(jnp.uint8))


def sparing_colours(changed: jax.Array, pixels: jax.Array, labels: Mapping[str, jax.Array]) -> jax.Array:
    """Returns `changed`, but `pixels` for pictures with a label that a change of colour would make wrong.

    Args:
      changed: `[batch, height, width, 3]`, float.
      pixels: the same pictures as they were.
      labels: by task `[batch]`, int32; negative: unknown.
    """
    spared = has_colour_label(labels, len(pixels))
    return jnp.where(spared[:, None, None, None], pixels.astype(changed.dtype), changed)


def mirrored(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors each of `images` `[batch, height, width, channels]` left to right with probability 0.5."""
    heads = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(heads, images[:, :, ::-1], images)


def cropped(pixels: jax.Array, key: jax.Array, most: float) -> jax.Array:
    """Cuts a rectangle out of each picture and enlarges it (bilinear) to the size of the whole.

    Args:
      pixels: `[batch, height, width, channels]`, float.
      key: random key of the rectangles.
      most: largest fraction of each side to cut off, drawn for each side, so the aspect ratio may change a little.
    """
    batch, height, width, channels = pixels.shape
    size_key, place_key = jax.random.split(key)
    kept = jax.random.uniform(size_key, (batch, 2), minval=1 - most, maxval=1.0)
    first = jax.random.uniform(place_key, (batch, 2)) * (1 - kept)

    def one(picture: jax.Array, kept: jax.Array, first: jax.Array) -> jax.Array:
        start = -first * jnp.asarray([height, width], first.dtype) / kept
        return jax.image.scale_and_translate(
            picture, (height, width, channels), (0, 1), 1 / kept, start, "linear", antialias=False
        )

    return jax.vmap(one)(pixels, kept, first)


def recoloured(pixels: jax.Array, key: jax.Array, most: float) -> jax.Array:
    """Changes brightness, then contrast, then saturation of each picture, as torchvision's functions of those names do.

    Args:
      pixels: `[batch, height, width, 3]`, float, in [0, 255].
      key: random key of the factors.
      most: how far the factors may be from 1.
    """
    factors = jax.random.uniform(key, (3, len(pixels), 1, 1, 1), minval=1 - most, maxval=1 + most)
    brightness, contrast, saturation = factors

    def grey(pixels: jax.Array) -> jax.Array:
        return jnp.sum(pixels * of_rank(jnp.asarray(_LUMA, pixels.dtype), pixels), axis=-1, keepdims=True)

    def blended(pixels: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
        return (other + factor * (pixels - other)).clip(0, 255)

    pixels = pixels.astype(factors.dtype)
    pixels = blended(pixels, jnp.zeros_like(pixels), brightness)
    pixels = blended(pixels, grey(pixels).mean(axis=(1, 2), keepdims=True), contrast)
    return blended(pixels, grey(pixels), saturation)


def erased(pixels: jax.Array, key: jax.Array, probability: float, fill: Sequence[float]) -> jax.Array:
    """Paints a rectangle of each picture over, or not.

    Args:
      pixels: `[batch, height, width, 3]`, float, in [0, 255].
      key: random key of the rectangles.
      probability: probability that a picture loses a rectangle.
      fill: the colour, RGB in [0, 1].
    """
    batch, height, width, _ = pixels.shape
    chance, area_key, ratio_key, place_key = jax.random.split(key, 4)
    area = jax.random.uniform(area_key, (batch,), minval=_ERASED_AREA[0], maxval=_ERASED_AREA[1])
    low, high = map(math.log, _ERASED_RATIO)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (batch,), minval=low, maxval=high))
    # In shares of the sides; a long rectangle of the largest area still fits.
    sides = jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], axis=-1).clip(max=1.0)
    first = jax.random.uniform(place_key, (batch, 2)) * (1 - sides)

    def inside(count: int, axis: int) -> jax.Array:
        centres = ((jnp.arange(count).astype(first.dtype) + 0.5) / count)[None]
        begin, end = first[:, axis, None], (first + sides)[:, axis, None]
        return (centres >= begin) & (centres < end)

    rectangle = inside(height, 0)[:, :, None] & inside(width, 1)[:, None, :]
    chosen = jax.random.bernoulli(chance, probability, (batch, 1, 1))
    paint = 255 * jnp.asarray(fill, pixels.dtype)
    return jnp.where((rectangle & chosen)[..., None], paint, pixels)
