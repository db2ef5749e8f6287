"""The jitted forward step that evaluation and prediction share."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models.preprocessing import normalize
from facefeat_jax.spec import ModelSpec


def make_predict_step(graphdef: nnx.GraphDef, spec: ModelSpec, dtype: DTypeLike):
    """Returns the jitted evaluation step.

    It takes `params`, `batch_stats`, `images` `[batch, size, size, 3]` uint8 and, static, `tasks`; it returns the
    logits `{task: [batch, outputs]}` in float32 or wider.
    """

    @partial(jax.jit, static_argnames="tasks")
    def predict_step(params, batch_stats, images, *, tasks: tuple[str, ...]):
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        logits = model(normalize(images, mean=spec.mean, std=spec.std, dtype=dtype), tasks=tasks)
        return {name: value.astype(jnp.promote_types(value.dtype, jnp.float32)) for name, value in logits.items()}

    return predict_step
