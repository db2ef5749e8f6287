"""The jitted training step: plain functions of arrays. The module graph is traversed only while tracing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.config import AugmentationConfig, OptimizerConfig
from facefeat_jax.data.feeds import Batches, Table, take
from facefeat_jax.data.placement import Placement
from facefeat_jax.forward import prepared
from facefeat_jax.models._values import Values, split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.programs import kept
from facefeat_jax.training import _averaging as averaging
from facefeat_jax.training import _groups as groups
from facefeat_jax.training._losses import masked_mean, per_example_loss, predicted_class
from facefeat_jax.training.augment import MIX, augmented
from facefeat_jax.training.mixing import mixed

DEFAULTS = OptimizerConfig()


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "batch_stats", "optimizer", "step", "average"],
    meta_fields=[],
)
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes, as nested dicts of arrays.

    Attributes:
      params: `{"trunk": ..., "heads": {task: ...}}`.
      batch_stats: the trunk's running statistics, as in the module tree.
      optimizer: Adam's state of each group (`training._groups`).
      step: `[]`, int32, number of steps taken.
      average: moving average of the trained groups and of the running statistics, or None.
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
    optimizer: OptimizerConfig = DEFAULTS,
) -> TrainState:
    """Returns the initial state: copies of the model's values, and a new optimizer state.

    Args:
      model: the initial weights.
      trained: the trunk's modules that are trained (`models.freezing.trained_modules`).
      optimizer: as in `StepOptions`.
    """
    _, params, batch_stats = split_values(model)
    parts = groups.parts(model.trunk, trained, optimizer.unfreeze_every)
    return _start(params, batch_stats, parts=parts, optimizer=optimizer)


def shapes_of_state(
    model: MultiTaskModel, trained: Iterable[str], *, optimizer: OptimizerConfig, placement: Placement
) -> TrainState:
    """Returns what `create_state` makes of such a model, with a copy on each device, as shapes; the model may too."""
    _, params, batch_stats = split_values(model)
    parts = groups.parts(model.trunk, trained, optimizer.unfreeze_every)
    return placement.shapes(_start.eval_shape(params, batch_stats, parts=parts, optimizer=optimizer))


# One program: copied one by one, each shape would be a program of its own.
@partial(jax.jit, static_argnames=("parts", "optimizer"))
def _start(
    params: Values, batch_stats: Values, *, parts: tuple[groups.Part, ...], optimizer: OptimizerConfig
) -> TrainState:
    params, batch_stats = jax.tree.map(jnp.copy, (params, batch_stats))
    chosen = groups.select(params, parts)
    average = averaging.start((chosen, batch_stats)) if optimizer.ema else None
    moments = groups.init(chosen, groups.adam(optimizer))
    return TrainState(params, batch_stats, moments, jnp.zeros((), jnp.int32), average)


def final_weights(state: TrainState) -> tuple[Values, Values]:
    """Returns the parameters and statistics to evaluate and save: the average, if there is one."""
    if state.average is None:
        return state.params, state.batch_stats
    chosen, batch_stats = state.average
    like = groups.of_names(state.params, chosen)
    return (
        groups.replace(state.params, averaging.as_values(chosen, like)),
        averaging.as_values(batch_stats, state.batch_stats),
    )


@jax.jit
def copied(values: Any) -> Any:
    """Returns copies that stay valid when the state is donated."""
    return jax.tree.map(jnp.copy, values)


def model_of(graphdef: nnx.GraphDef, state: TrainState) -> MultiTaskModel:
    """Returns the module with the state's values, in the mode of the graph definition."""
    return nnx.merge(graphdef, state.params, state.batch_stats, copy=True)


def graphdefs(
    model: MultiTaskModel, trained: Iterable[str], *, freeze_batch_norm: bool
) -> tuple[nnx.GraphDef, nnx.GraphDef]:
    """Returns the model's graph definitions for training and for evaluation.

    Args:
      model: it is left in evaluation mode.
      trained: the trunk's modules that are trained.
      freeze_batch_norm: whether frozen modules are in evaluation mode. They then normalise with their running
        statistics and use no dropout. In the baseline they are not: `model.train()` puts every BatchNorm in training
        mode.
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


@dataclass(frozen=True)
class StepOptions:
    """What the training step does; fixed while the step is traced.

    Attributes:
      trained: the trunk's modules that are trained (`models.freezing.trained_modules`).
      learning_rate: learning rate by step: `[]` int32 to `[]`.
      dtype: dtype of the computation.
      optimizer: the `optimizer` of the run's config. Its learning rate is not read: see `learning_rate`.
      augmentation: the `augmentation` of the run's config.
      seed: seed of the step's random numbers.
      after: stage of the trunk whose outputs replace the pictures; None for pictures.
    """

    trained: tuple[str, ...]
    learning_rate: optax.Schedule
    dtype: DTypeLike
    optimizer: OptimizerConfig = DEFAULTS
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    seed: int = 0
    after: str | None = None


@kept
def make_step(graphdef: nnx.GraphDef, spec: ModelSpec, options: StepOptions):
    """Returns the training step, a plain function to trace.

    Random numbers (for augmentation and dropout) depend only on the seed and the state's step, so a resumed run draws
    the same. With `optimizer.ema`, the step also updates the state's average (`create_state` with the same optimizer).

    The step takes the state, `rows` (uint8 pictures `[batch, size, size, 3]` or, with `after`, the outputs of that
    stage of the trunk), `labels` `{task: [batch]}` int32 (negative: unknown), `mask` `[batch]` bool (false: padding)
    and, static, the `tasks` whose losses are summed. It returns the new state and, for each task, the mean loss, the
    number of correct predictions and the number of labels, on the device.

    With `on_nonfinite="skip"`, a step whose loss or gradients are not finite changes only the step number. The metrics
    of each task then have `finite`: whether the step was taken.
    """
    trained, after, optimizer, augmentation = options.trained, options.after, options.optimizer, options.augmentation
    transformation = groups.adam(optimizer)

    def step(state: TrainState, rows, labels, mask, *, tasks: tuple[str, ...]):
        key = jax.random.fold_in(jax.random.key(options.seed), state.step)
        rows = augmented(rows, labels, key, augmentation, fill=spec.mean)
        pairs = None
        if augmentation.mixup or augmentation.cutmix:
            mix_key, alphas = jax.random.fold_in(key, MIX), (augmentation.mixup, augmentation.cutmix)
            pairs = mixed(rows, labels, mask, mix_key, mixup=alphas[0], cutmix=alphas[1])
            rows = pairs.images
        inputs = prepared(rows, spec, options.dtype, after)
        whole = model_of(graphdef, state)  # for its structure
        parts = groups.parts(whole.trunk, trained, optimizer.unfreeze_every)
        everything = groups.select(state.params, parts)
        reached = {name: everything[name] for name in (*(part.name for part in parts), *tasks) if everything[name]}

        def loss_of(reached: groups.Groups):
            model = nnx.merge(graphdef, groups.replace(state.params, reached), state.batch_stats, copy=True)
            rngs = nnx.Rngs(dropout=jax.random.fold_in(key, 1))
            logits = model(inputs, tasks=tasks, mask=mask, after=after, rngs=rngs)
            loss = partial(per_example_loss, smoothing=optimizer.label_smoothing)
            per_task, wanted = {task: loss(logits[task], labels[task]) for task in tasks}, labels
            if pairs is not None:
                others = {task: loss(logits[task], labels[task][pairs.partner]) for task in tasks}
                per_task = {task: pairs.loss(per_task[task], others[task]) for task in tasks}
                wanted = {task: pairs.leading(labels[task]) for task in tasks}
            metrics = {}
            for task in tasks:
                counted = mask & (labels[task] >= 0)
                metrics[task] = {
                    "loss": masked_mean(per_task[task], counted),
                    "correct": jnp.sum((predicted_class(logits[task]) == wanted[task]) & counted),
                    "count": jnp.sum(counted),
                }
            _, _, batch_stats = split_values(model)
            return sum(metric["loss"] for metric in metrics.values()), (batch_stats, metrics)

        gradients, (batch_stats, metrics) = jax.grad(loss_of, has_aux=True)(reached)
        counts = {task: metric["count"] for task, metric in metrics.items()}
        counts |= {part.name: state.step + 1 - part.first_step for part in parts if part.first_step}
        scales = None
        if optimizer.layer_decay != 1:
            scales = groups.lr_scales(whole, state.params, parts, optimizer.layer_decay)
        rate = options.learning_rate(state.step)
        updated, moments = groups.update(everything, gradients, state.optimizer, rate, counts, transformation, scales)
        average = state.average
        if optimizer.ema:
            average = averaging.update(average, (updated, batch_stats), optimizer.ema, state.step)
        after_step = TrainState(groups.replace(state.params, updated), batch_stats, moments, state.step + 1, average)
        if optimizer.on_nonfinite == "skip":
            # Not optax.apply_if_finite: it looks at the gradients alone, keeps only the optimizer (not the statistics
            # and the average), takes the step after all when several in a row fail, and adds to the checkpoint.
            finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, batch_stats))]).all()
            finite &= jnp.isfinite(sum(metric["loss"] for metric in metrics.values()))
            chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after_step, state)
            after_step = replace(chosen, step=after_step.step)
            metrics = {task: {**metric, "finite": finite} for task, metric in metrics.items()}
        return after_step, metrics

    return step


@kept
def make_train_step(graphdef: nnx.GraphDef, spec: ModelSpec, options: StepOptions):
    """Returns the step of `make_step`, jitted. It donates the state, so that its buffers are reused."""
    return partial(jax.jit, static_argnames="tasks", donate_argnames="state")(make_step(graphdef, spec, options))


@kept
def make_train_call(step, placement: Placement):
    """Returns a jitted function that takes one step or several, by the length of the batches.

    It takes the state (donated), the `table` that indices stand for or None, `batches` (`data.feeds.Batches`) and,
    static, the `tasks`; it returns the new state and the metrics of each step, `[steps]`.
    """

    # Results are replicated, so that each of several processes can read the metrics.
    @partial(jax.jit, static_argnames="tasks", donate_argnames="state", out_shardings=placement.replicated)
    def train_call(state: TrainState, table: Table | None, batches: Batches, *, tasks: tuple[str, ...]):
        def one_step(state: TrainState, batch: Batches):
            rows, labels, mask = placement.split(take(table, batch, tasks))
            return step(state, rows, labels, mask, tasks=tasks)

        if batches.mask.shape[0] > 1:
            return jax.lax.scan(one_step, state, batches)
        # No scan over one step: XLA on CPU computes gradients inside a loop on one thread.
        state, metrics = one_step(state, jax.tree.map(lambda values: values[0], batches))
        return state, jax.tree.map(lambda value: value[None], metrics)

    return train_call
