"""Mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899), inside jit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32, UInt8

from facefeat_jax.models.arrays import Mask

Uint8Images = UInt8[jax.Array, "batch height width 3"]


class Mixed(NamedTuple):
    """Pictures that were mixed in pairs.

    Attributes:
      images: `[batch, height, width, 3]`, uint8.
      partner: `[batch]`, int32, number of the picture that each was mixed with.
      share: `[batch]`, float32, how much of the result is the picture itself; the rest is its partner.
    """

    images: Uint8Images
    partner: Int32[jax.Array, " batch"]
    share: Float[jax.Array, " batch"]

    def loss(self, own: Float[jax.Array, " batch"], partners: Float[jax.Array, " batch"]) -> Float[jax.Array, " batch"]:
        """Returns the loss for both labels, which is the cross-entropy with the soft label.

        Args:
          own: loss of each row for its own label.
          partners: loss of each row for the label of its partner, `labels[mixed.partner]`.
        """
        share = self.share.astype(own.dtype)
        return share * own + (1 - share) * partners

    def leading(self, labels: Int32[jax.Array, " batch"]) -> Int32[jax.Array, " batch"]:
        """Returns the label of that one of the two which is more of each result."""
        return jnp.where(self.share >= 0.5, labels, labels[self.partner])


def mixed(
    images: Uint8Images,
    labels: Mapping[str, jax.Array],
    mask: Mask,
    key: jax.Array,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Mixed:
    """Mixes each picture with another one that has labels for the same tasks, so that no head lacks half a label.

    A picture without such a partner stays as it is. With `mixup` and `cutmix`, each picture has one of them, with equal
    probability.

    Args:
      images: `[batch, height, width, 3]`, uint8.
      labels: by task `[batch]`, int32; negative: unknown.
      mask: `[batch]`, false for padding, which no picture is mixed with.
      key: random key of partners and shares.
      mixup: both parameters of the beta distribution that shares are drawn from: colours are averaged with the share
        as weight, and rounded. 0 leaves it out.
      cutmix: the same of rectangles of the partner, whose area has the share drawn, less what lies outside.
    """
    images, labels, mask, key = jax.lax.optimization_barrier((images, dict(labels), mask, key))
    partner_key, mixup_key, cutmix_key, place_key, choice_key = jax.random.split(key, 5)
    partner = partners(labels, mask, partner_key)
    others, count = images[partner], (len(images),)
    share = jnp.ones(count, jnp.float32)
    if cutmix:
        drawn = jax.random.beta(cutmix_key, cutmix, cutmix, count, jnp.float32)
        inside, area = rectangles(drawn, place_key, *images.shape[1:3])
        found, share = jnp.where(inside[..., None], others, images), 1 - area
    if mixup:
        drawn = jax.random.beta(mixup_key, mixup, mixup, count, jnp.float32)
        weight = drawn[:, None, None, None]
        average = weight * images.astype(jnp.float32) + (1 - weight) * others.astype(jnp.float32)
        average = jnp.round(average).astype(images.dtype)
        averages = jax.random.bernoulli(choice_key, shape=count) if cutmix else jnp.ones(count, bool)
        found = jnp.where(averages[:, None, None, None], average, found if cutmix else images)
        share = jnp.where(averages, drawn, share)
    return Mixed(*jax.lax.optimization_barrier((found, partner, share)))


def partners(labels: Mapping[str, jax.Array], mask: Mask, key: jax.Array) -> Int32[jax.Array, " batch"]:
    """Returns for each picture another one with labels for the same tasks, or itself where there is none.

    Pictures with labels for the same tasks are put in a random order; each has the next one, and the last the first.
    """
    known = [mask, *(labels[task] >= 0 for task in sorted(labels))]
    order = jnp.lexsort([jax.random.uniform(key, mask.shape), *known])
    place = jnp.arange(len(order))
    changes = [values[order] != jnp.roll(values[order], 1) for values in known]
    is_first = (place == 0) | jnp.stack(changes).any(axis=0)
    first = jax.lax.cummax(jnp.where(is_first, place, 0))
    following = jnp.where(jnp.roll(is_first, -1), first, place + 1)
    return jnp.zeros_like(order).at[order].set(order[following]).astype(jnp.int32)


def rectangles(
    share: Float[jax.Array, " batch"], key: jax.Array, height: int, width: int
) -> tuple[jax.Array, Float[jax.Array, " batch"]]:
    """Returns which pixels the partner gives, `[batch, height, width]` bool, and which part of the area they are.

    Args:
      share: of the picture itself; the rectangle has the picture's aspect ratio.
      key: random key of the centres, anywhere in the picture. What lies outside is cut off.
      height: of the pictures.
      width: of the pictures.
    """
    side = jnp.sqrt(1 - share)
    keys = jax.random.split(key)

    def span(key: jax.Array, length: int) -> jax.Array:
        centre = jax.random.randint(key, share.shape, 0, length)
        half = (side * length).astype(jnp.int32) // 2
        pixels = jnp.arange(length)[None]
        return (pixels >= (centre - half)[:, None]) & (pixels < (centre + half)[:, None])

    inside = span(keys[0], height)[:, :, None] & span(keys[1], width)[:, None, :]
    return inside, jnp.mean(inside, axis=(1, 2), dtype=jnp.float32)
