"""Losses and hits from logits, inside jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Int32

from facefeat_jax.models._promotion import float32_or_wider
from facefeat_jax.models.arrays import Logits, Mask


def per_example_loss(
    logits: Logits, labels: Int[jax.Array, " batch"], *, smoothing: float = 0.0
) -> Float[jax.Array, " batch"]:
    """Binary cross-entropy for one logit, softmax cross-entropy for several.

    The baseline computes `BCELoss` from a sigmoid's output. In exact arithmetic this is the same. In float32 it differs
    if the sigmoid rounds to 0 or 1 (logits beyond about 17): torch then clamps the logarithm at -100 and its gradient
    is 0, while the form used here stays accurate.

    Args:
      logits: `[batch, outputs]`; types narrower than float32 are converted to float32.
      labels: `[batch]`, int32 class numbers. The loss of a row with a negative (unknown) label is finite but
        meaningless; mask it.
      smoothing: fraction of a label that is spread evenly over all classes (two classes for one logit).

    Returns:
      `[batch]`.
    """
    logits = logits.astype(float32_or_wider(logits.dtype))
    known = jnp.maximum(labels, 0)
    if logits.shape[-1] == 1:
        target = known.astype(logits.dtype)
        if smoothing:
            target = optax.smooth_labels(jnp.stack([1 - target, target], axis=-1), smoothing)[:, 1]
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], target)
    if smoothing:
        wanted = jax.nn.one_hot(known, logits.shape[-1], dtype=logits.dtype)
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(wanted, smoothing))
    return optax.softmax_cross_entropy_with_integer_labels(logits, known)


def predicted_class(logits: Logits) -> Int32[jax.Array, " batch"]:
    """Returns the class numbers `[batch]`, int32, with the highest logits `[batch, outputs]`."""
    if logits.shape[-1] == 1:
        return (logits[:, 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def masked_mean(values: Float[jax.Array, " batch"], mask: Mask) -> Float[jax.Array, ""]:
    """Returns the mean of `values` where `mask` is true; 0 if it is true nowhere."""
    return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(jnp.sum(mask), 1).astype(values.dtype)
