"""The jitted steps. Plain functions of arrays: the module graph is walked while tracing only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.data.feeds import Batches, Table, take
from facefeat_jax.data.placement import Placement
from facefeat_jax.forward import prepared
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.values import Values, split_values
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.training import averaging, groups
from facefeat_jax.training.augment import Augmentation
from facefeat_jax.training.losses import masked_mean, per_example_loss, predicted_class

NO_AUGMENTATION = Augmentation()


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "batch_stats", "optimizer", "step", "average"],
    meta_fields=[],
)
@dataclass(frozen=True)
class TrainState:
    """All that training changes; nested dicts of arrays.

    Attributes:
      params: `{"trunk": ..., "heads": {task: ...}}`.
      batch_stats: the trunk's running statistics, as in the module tree.
      optimizer: Adam's state of each group (`training.groups`).
      step: `[]`, int32, steps taken.
      average: the moving average of what is trained (the optimizer's groups) and of the running statistics, or None.
    """

    params: Values
    batch_stats: Values
    optimizer: dict[str, Any]
    step: jax.Array
    average: Any = None


def create_state(
    model: MultiTaskModel,
    trained: Iterable[str],
    *,
    optimizer: optax.GradientTransformation = groups.ADAM,
    averaged: bool = False,
) -> TrainState:
    """Returns the start of training: copies of the model's values, and an optimizer that has seen nothing.

    Args:
      model: the initial weights.
      trained: the trunk's modules that are trained (`groups.trained_modules`).
      optimizer: as in `make_step`.
      averaged: whether an average of the weights is kept; so it is where `make_step` has `ema`.
    """
    trained = tuple(trained)
    _, params, batch_stats = split_values(model)

    # As one program: done one by one, the copies would be one for each shape there is.
    @jax.jit
    def start(params: Values, batch_stats: Values) -> TrainState:
        params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
        chosen = groups.select(params, trained)
        average = averaging.start((chosen, batch_stats)) if averaged else None
        return TrainState(params, batch_stats, groups.init(chosen, optimizer), jnp.zeros((), jnp.int32), average)

    return start(params, batch_stats)


def final_weights(state: TrainState) -> tuple[Values, Values]:
    """Returns the parameters and statistics that a run would end with now: the average's, where one is kept."""
    if state.average is None:
        return state.params, state.batch_stats
    chosen, batch_stats = state.average
    like = groups.select(state.params, chosen[groups.TRUNK])
    return (
        groups.replace(state.params, averaging.as_values(chosen, like)),
        averaging.as_values(batch_stats, state.batch_stats),
    )


@jax.jit
def copied(values: Any) -> Any:
    """Returns copies that stay when the state's buffers are given away."""
    return jax.tree.map(jnp.copy, values)


def model_of(graphdef: nnx.GraphDef, state: TrainState) -> MultiTaskModel:
    """Returns the module with the state's values, in the mode of the graph definition."""
    return nnx.merge(graphdef, state.params, state.batch_stats, copy=True)


def graphdefs(
    model: MultiTaskModel, trained: Iterable[str], *, freeze_batch_norm: bool
) -> tuple[nnx.GraphDef, nnx.GraphDef]:
    """Returns the model's graph definitions for training and for evaluation.

    Args:
      model: its mode is left as evaluation.
      trained: the trunk's modules that are trained.
      freeze_batch_norm: whether modules that are not trained are in evaluation mode: they normalise with their running
        statistics and drop nothing at random. The baseline's are not: `model.train()` puts every BatchNorm in training
        mode, also where no weight is trained.
    """
    model.train()
    if freeze_batch_norm:
        for name in {module for stage in model.trunk.STAGES.values() for module in stage} - set(trained):
            module = getattr(model.trunk, name)
            for part in module if isinstance(module, nnx.List) else [module]:
                part.eval()
    training = nnx.graphdef(model)
    model.eval()
    return training, nnx.graphdef(model)


def make_step(
    graphdef: nnx.GraphDef,
    spec: ModelSpec,
    trained: Iterable[str],
    learning_rate: optax.Schedule,
    dtype: DTypeLike,
    *,
    augmentation: Augmentation = NO_AUGMENTATION,
    optimizer: optax.GradientTransformation = groups.ADAM,
    label_smoothing: float = 0.0,
    ema: float = 0.0,
    seed: int = 0,
    after: str | None = None,
    skip_nonfinite: bool = False,
):
    """Returns the training step, a plain function to be traced.

    What is random (the augmentation, and the trunk's dropout) is a function of `seed` and of the state's step, so that
    a run which was resumed draws the same. With `ema` the state's average (`create_state(averaged=True)`) moves along.

    The step takes the state, `rows` (uint8 pictures `[batch, size, size, 3]` or, with `after`, the outputs of that
    stage of the trunk), `labels` `{task: [batch]}` int32 (negative: unknown), `mask` `[batch]` bool (false: padding)
    and, static, the `tasks` whose losses are summed. It returns the new state and, per task, the mean loss, the hits
    and the count, on the device.

    With `skip_nonfinite`, a step whose loss or gradients are not finite leaves everything as it was but the step's
    number; the metrics of each task then have `finite`, which says whether it was taken.
    """
    trained = tuple(trained)

    def step(state: TrainState, rows, labels, mask, *, tasks: tuple[str, ...]):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if augmentation:
            rows = augmentation(rows, labels, key, fill=spec.mean)
        inputs = prepared(rows, spec, dtype, after)
        everything = groups.select(state.params, trained)
        reached = {name: everything[name] for name in (groups.TRUNK, *tasks) if everything[name]}

        def loss_of(reached: groups.Groups):
            model = nnx.merge(graphdef, groups.replace(state.params, reached), state.batch_stats, copy=True)
            rngs = nnx.Rngs(dropout=jax.random.fold_in(key, 1))
            logits = model(inputs, tasks=tasks, mask=mask, after=after, rngs=rngs)
            per_task = {task: per_example_loss(logits[task], labels[task], smoothing=label_smoothing) for task in tasks}
            metrics = {}
            for task in tasks:
                counted = mask & (labels[task] >= 0)
                metrics[task] = {
                    "loss": masked_mean(per_task[task], counted),
                    "correct": jnp.sum((predicted_class(logits[task]) == labels[task]) & counted),
                    "count": jnp.sum(counted),
                }
            _, _, batch_stats = split_values(model)
            return sum(metric["loss"] for metric in metrics.values()), (batch_stats, metrics)

        gradients, (batch_stats, metrics) = jax.grad(loss_of, has_aux=True)(reached)
        counts = {task: metric["count"] for task, metric in metrics.items()}
        updated, moments = groups.update(
            everything, gradients, state.optimizer, learning_rate(state.step), counts, optimizer
        )
        average = state.average
        if ema:
            average = averaging.update(average, (updated, batch_stats), ema, state.step)
        after_step = TrainState(groups.replace(state.params, updated), batch_stats, moments, state.step + 1, average)
        if skip_nonfinite:
            finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, batch_stats))]).all()
            finite &= jnp.isfinite(sum(metric["loss"] for metric in metrics.values()))
            kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after_step, state)
            after_step = replace(kept, step=after_step.step)
            metrics = {task: {**metric, "finite": finite} for task, metric in metrics.items()}
        return after_step, metrics

    return step


def make_train_step(*args: Any, **options: Any):
    """Returns `make_step`'s step, jitted; the state is donated: its buffers are reused."""
    return partial(jax.jit, static_argnames="tasks", donate_argnames="state")(make_step(*args, **options))


def make_train_call(step, placement: Placement):
    """Returns a jitted function that takes one step or several, by the length of what it is given.

    It takes the state (donated), the `table` that indices stand for or None, `batches` (`data.feeds.Batches`) and,
    static, the `tasks`; it returns the new state and the metrics of each step, `[steps]`.
    """

    # Results are on every device: where processes share the devices, each of them reads the figures.
    @partial(jax.jit, static_argnames="tasks", donate_argnames="state", out_shardings=placement.replicated)
    def train_call(state: TrainState, table: Table | None, batches: Batches, *, tasks: tuple[str, ...]):
        def one(state: TrainState, batch: Batches):
            rows, labels, mask = placement.split(take(table, batch, tasks))
            return step(state, rows, labels, mask, tasks=tasks)

        if batches.mask.shape[0] > 1:
            return jax.lax.scan(one, state, batches)
        # Not a loop of one round: XLA on CPU computes the gradients in a loop on one thread.
        state, metrics = one(state, jax.tree.map(lambda values: values[0], batches))
        return state, jax.tree.map(lambda value: value[None], metrics)

    return train_call
