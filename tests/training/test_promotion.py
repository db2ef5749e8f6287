"""Broadcasting is spelled out: JAX_NUMPY_RANK_PROMOTION=raise, which a user's program may set, stops no step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.evaluation.predict_step import make_predict_step
from facefeat_jax.models.values import split_values
from facefeat_jax.training import groups, steps
from facefeat_jax.training.augment import Augmentation


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_trace_without_rank_promotion(small_model, dtype: str) -> None:
    model, spec = small_model(dtype, "float32")
    trained, tasks = ("layer4",), tuple(task.name for task in spec.tasks)
    graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=False)
    rate = groups.learning_rate_schedule("cosine", 1e-3, 100, 10)
    augmentation = Augmentation(flip=True, crop=0.2, colour=0.2, erase=0.2)
    step = steps.make_step(graph, spec, trained, rate, dtype, augmentation=augmentation, label_smoothing=0.1, ema=0.9)
    state = steps.create_state(model, trained, averaged=True)
    _, params, batch_stats = split_values(model)
    rows, mask = jnp.zeros((4, 32, 32, 3), np.uint8), jnp.ones(4, bool)
    labels = {task: jnp.zeros(4, np.int32) for task in tasks}
    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(lambda *arguments: step(*arguments, tasks=tasks), state, rows, labels, mask)
        predict = make_predict_step(eval_graph, spec, dtype)
        jax.eval_shape(lambda *arguments: predict(*arguments, tasks=tasks), params, batch_stats, rows)
