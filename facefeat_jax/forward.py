"""The jitted forward step that evaluation and prediction share."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.data.feeds import Batches, Table, take
from facefeat_jax.data.placement import Placement
from facefeat_jax.models._promotion import float32_or_wider
from facefeat_jax.models.preprocessing import normalize
from facefeat_jax.models.trunk import POOLED
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.programs import kept


def prepared(rows: jax.Array, spec: ModelSpec, dtype: DTypeLike, after: str | None) -> jax.Array:
    """Returns the input of the trunk: normalised pictures or, with `after`, the outputs of that stage, in `dtype`."""
    if after is None:
        return normalize(rows, mean=spec.mean, std=spec.std, dtype=dtype)
    return rows.astype(dtype)


FEATURES = "pooled features"
"""Under which `make_predict_step` returns them beside the heads; no head can have this name."""


@kept
def make_predict_step(
    graphdef: nnx.GraphDef, spec: ModelSpec, dtype: DTypeLike, *, after: str | None = None, features: bool = False
):
    """Returns the jitted evaluation step.

    It takes `params`, `batch_stats`, `rows` (uint8 pictures `[batch, size, size, 3]` or, with `after`, the outputs of
    that stage of the trunk) and, static, `tasks`; it returns the logits `{task: [batch, outputs]}` in float32 or wider,
    with `features` also the trunk's pooled features `[batch, features]` under `FEATURES`.
    """

    @partial(jax.jit, static_argnames="tasks")
    def predict_step(params, batch_stats, rows, *, tasks: tuple[str, ...]):
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        inputs = prepared(rows, spec, dtype, after)
        pooled = inputs if after == POOLED else model.trunk(inputs, after=after)
        found = model(pooled, tasks=tasks, after=POOLED)
        if features:
            found[FEATURES] = pooled
        return {name: value.astype(float32_or_wider(value.dtype)) for name, value in found.items()}

    return predict_step


def predicted(predict_step, params, batch_stats, pictures: np.ndarray, tasks: tuple[str, ...], batch: int):
    """Runs the step of `make_predict_step` on pictures in host memory; the last batch is filled up, for one program.

    Args:
      predict_step: the step.
      params: as it takes them.
      batch_stats: the same.
      pictures: uint8 `[n, size, size, 3]`, one at least.
      tasks: the heads.
      batch: pictures in a batch.

    Returns:
      What the step returns, of all n pictures: NumPy arrays by name.
    """
    found = []
    for start in range(0, len(pictures), batch):
        rows = pictures[start : start + batch]
        padded = jax.device_put(np.concatenate([rows, np.repeat(rows[:1], batch - len(rows), axis=0)]))
        answers = jax.device_get(predict_step(params, batch_stats, padded, tasks=tasks))
        found.append({name: np.asarray(values)[: len(rows)] for name, values in answers.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


@kept
def make_predict_call(predict_step, placement: Placement):
    """Returns the same step for a feed: instead of `rows` it takes `table` (or None) and the `batches` of one step."""

    # Results are replicated, so that each of several processes can read all logits.
    @partial(jax.jit, static_argnames="tasks", out_shardings=placement.replicated)
    def predict_call(params, batch_stats, table: Table | None, batches: Batches, *, tasks: tuple[str, ...]):
        batch = jax.tree.map(lambda values: values[0], batches)
        rows, _, _ = placement.split(take(table, batch, ()))
        return predict_step(params, batch_stats, rows, tasks=tasks)

    return predict_call
