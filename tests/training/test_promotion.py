"""Broadcasting is spelled out: JAX_NUMPY_RANK_PROMOTION=raise, which a user may set, stops no program of ours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.config import AugmentationConfig, OptimizerConfig
from facefeat_jax.evaluation.explain import Explainer
from facefeat_jax.forward import make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps

from ..made import filled

pytestmark = pytest.mark.long

TASK_NAMES = ("gender", "shirt")


@pytest.mark.parametrize("family", ["resnet", pytest.param("efficientnet", marks=pytest.mark.slow), "vit"])
def test_programs_are_traced_without_rank_promotion(tiny_trunks, family: str) -> None:
    """In two dtypes at once; the other tests run with it raised, and in float32."""
    trunk, dtype = tiny_trunks[family], "bfloat16"
    spec = ModelSpec(trunk, {task: TASKS[task].classes for task in TASK_NAMES}, 32, "upright", "random", dtype=dtype)
    rows, mask = jnp.zeros((4, 32, 32, 3), np.uint8), jnp.ones(4, bool)
    labels = {task: jnp.zeros(4, np.int32) for task in TASK_NAMES}
    with jax.numpy_rank_promotion("raise"):
        model = filled(spec.abstract())
        trained = groups.trained_modules(model.trunk.STAGES, ("all",))
        graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=False)
        optimizer = OptimizerConfig(
            learning_rate=1e-3,
            learning_rate_schedule="cosine",
            warmup_steps=10,
            weight_decay=0.01,
            layer_decay=0.8,
            unfreeze_every=3,
            label_smoothing=0.1,
            ema=0.9,
            on_nonfinite="skip",
        )
        step = steps.make_step(
            graph,
            spec,
            steps.StepOptions(
                trained,
                groups.learning_rate_schedule(optimizer, 100),
                dtype,
                augmentation=AugmentationConfig(
                    flip=True, crop=0.2, colour_jitter=0.2, erase=0.2, rand_augment=9, mixup=0.2, cutmix=1.0
                ),
                optimizer=optimizer,
            ),
        )
        state = steps.create_state(model, trained, optimizer=optimizer)
        jax.eval_shape(lambda *arguments: step(*arguments, tasks=TASK_NAMES), state, rows, labels, mask)
        _, params, batch_stats = split_values(model)
        predict = make_predict_step(eval_graph, spec, dtype)
        jax.eval_shape(lambda *arguments: predict(*arguments, tasks=TASK_NAMES), params, batch_stats, rows)
        Explainer(model, spec).maps(np.zeros((1, 32, 32, 3), np.uint8), TASK_NAMES)
