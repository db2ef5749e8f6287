"""The JAX side: the project's own model, steps and optimizer, run on a case. Needs no torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from facefeat_jax.config import OptimizerConfig
from facefeat_jax.data.examples import UNKNOWN
from facefeat_jax.data.index_stream import pad
from facefeat_jax.models import MultiTaskModel, normalize
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.models.resnet import BasicBlock, ResNet
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps
from parity.cases import TASK_NAMES, Batch, Case
from weights_conversion import to_flax, to_torch
from weights_conversion._records import Arrays, Record, precision, split_state

LEARNING_RATE = 1e-4


def make_model(weights: Arrays, dtype: str) -> MultiTaskModel:
    """Returns the model with the state dict's weights, through the converter, all of it in `dtype`."""
    spec = _spec(image_size=224)
    return to_flax(weights, dataclasses.replace(spec, dtype=dtype, param_dtype=dtype).abstract())


def activations(weights: Arrays, images: np.ndarray, *, training: bool, dtype: str = "float64") -> Record:
    """Runs the model forward once and records the map after every block.

    Args:
      weights: a state dict with the notebook's names.
      images: `[batch, size, size, 3]`, uint8.
      training: whether the BatchNorms are in training mode; then what they leave behind is recorded too.
      dtype: of everything.

    Returns:
      `activations`: `stem` (after the max-pool), each block, `pooled`, and each head's logits; maps in torch's NCHW.
      `statistics` and the counters after the pass.
    """
    with precision(dtype):
        model = make_model(weights, dtype)
        model.train() if training else model.eval()
        with _recorded(model) as maps:
            logits = model(normalize(jnp.asarray(images), dtype=dtype))
        heads = {f"{task} logits": np.asarray(value) for task, value in logits.items()}
        _, statistics, counters = split_state(to_torch(model))
        return Record({"activations": {**maps, **heads}, "statistics": statistics}, {"batches tracked": counters})


def train(case: Case, *, dtype: str = "float64") -> Record:
    """Trains with the production step on the case's batches, the short ones padded and masked as the feeds do.

    Returns:
      `losses` by step, and after the last: `weights`, `statistics`, `first moments`, `second moments`, and the counters
      of BatchNorm and of Adam.
    """
    with precision(dtype):
        spec = _spec(case.image_size)
        model = make_model(case.weights(), dtype)
        trained = groups.trained_modules(get_architecture(spec.trunk).stages, case.trainable)
        train_graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=False)
        learning_rate = groups.learning_rate_schedule(OptimizerConfig(learning_rate=LEARNING_RATE), case.num_steps)
        train_step = steps.make_train_step(train_graph, spec, steps.StepOptions(trained, learning_rate, dtype))
        state = steps.create_state(model, trained)
        losses: dict[str, Any] = {}
        for number, batch in enumerate(case.batches(), start=1):
            state, metrics = train_step(state, **_padded(batch, case.batch_size), tasks=(batch.task,))
            losses[f"step {number:03} {batch.task}"] = metrics[batch.task]["loss"]
        weights, statistics, counters = split_state(to_torch(steps.model_of(eval_graph, state)))
        moments = {
            name: _of_optimizer(eval_graph, state, {one: getattr(adam, key) for one, adam in state.optimizer.items()})
            for name, key in (("first moments", "mu"), ("second moments", "nu"))
        }
        return Record(
            {"losses": jax.device_get(losses), "weights": weights, "statistics": statistics, **moments},
            {"batches tracked": counters, "Adam steps": _adam_steps(eval_graph, state, trained)},
        )


def _spec(image_size: int) -> ModelSpec:
    classes = {name: TASKS[name].classes for name in TASK_NAMES}
    return ModelSpec("resnet18", classes, image_size, "as_notebook", "random")


def _padded(batch: Batch, batch_size: int) -> dict[str, Any]:
    wanted = pad((batch.task,), np.arange(len(batch.labels)), batch_size)
    labels = np.where(wanted.mask, batch.labels[wanted.indices], UNKNOWN).astype(np.int32)
    return {"rows": batch.images[wanted.indices], "labels": {batch.task: labels}, "mask": wanted.mask}


def _adam_steps(graphdef: nnx.GraphDef, state: steps.TrainState, trained: tuple[str, ...]) -> dict[str, int]:
    counts = {
        name: jax.tree.map(lambda value, count=state.optimizer[name].count: jnp.full_like(value, count), group)
        for name, group in groups.select(state.params, (groups.Part(groups.TRUNK, trained, 0),)).items()
    }
    return {name: int(array.flat[0]) for name, array in _of_optimizer(graphdef, state, counts).items()}


def _of_optimizer(graphdef: nnx.GraphDef, state: steps.TrainState, per_group: groups.Groups) -> Arrays:
    """Returns values that lie beside the trained parameters, by the parameters' names in torch.

    They take the parameters' places in the model and go through the converter; what is not trained is marked by NaN.
    """
    nothing = jax.tree.map(lambda value: jnp.full_like(value, jnp.nan), state.params)
    tensors = to_torch(nnx.merge(graphdef, groups.replace(nothing, per_group), state.batch_stats, copy=True))
    return {name: array for name, array in split_state(tensors)[0].items() if not np.isnan(array).all()}


@contextlib.contextmanager
def _recorded(model: MultiTaskModel) -> Iterator[Arrays]:
    """Records the maps of a forward pass as it runs, as PyTorch's hooks do: no production code is repeated here."""
    maps: Arrays = {}
    names = {
        id(block): f"{stage}.{number}"
        for stage in ("layer1", "layer2", "layer3", "layer4")
        for number, block in enumerate(getattr(model.trunk, stage))
    }
    block_call, stage, pool = BasicBlock.__call__, ResNet.stage, ResNet.pool

    def recorded_block(self, inputs, **kwargs):
        outputs = maps[names[id(self)]] = block_call(self, inputs, **kwargs)
        return outputs

    def recorded_stage(self, name, inputs, **kwargs):
        outputs = stage(self, name, inputs, **kwargs)
        if name == "stem":
            maps["stem"] = outputs
        return outputs

    def recorded_pool(self, inputs, **kwargs):
        outputs = maps["pooled"] = pool(self, inputs, **kwargs)
        return outputs

    with (
        mock.patch.object(BasicBlock, "__call__", recorded_block),
        mock.patch.object(ResNet, "stage", recorded_stage),
        mock.patch.object(ResNet, "pool", recorded_pool),
    ):
        yield maps
    for name, value in maps.items():
        maps[name] = np.asarray(value).transpose(0, 3, 1, 2) if value.ndim == 4 else np.asarray(value)
