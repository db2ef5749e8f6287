"""The stages that need no picture files: a matrix product, the training step, the evaluation step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from facefeat_jax.benchmarking.measure import Measurement, Settings, repeated
from facefeat_jax.config import PipelineConfig
from facefeat_jax.data.feeds import Batches, Table
from facefeat_jax.data.placement import Placement
from facefeat_jax.factory import create_model
from facefeat_jax.forward import make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.runtime import set_numerics
from facefeat_jax.tasks import BASELINE_TASKS, get_task
from facefeat_jax.training import _automatic as automatic
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps

_PRECISIONS = {"float32": ("float32", "highest"), "tf32": ("float32", "tensorfloat32"), "bf16": ("bfloat16", "default")}


def numerics(precision: str) -> str:
    """Sets the precision of products in this process; returns the dtype of the computation."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bf16"
    dtype, products = _PRECISIONS[precision]
    set_numerics(dtype, "float32", products)
    return dtype


def matmul(settings: Settings) -> Measurement:
    """A square matrix product: the most that this side gets out of the machine."""
    dtype = numerics(settings["precision"])
    size = settings["size"]
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    product = jax.jit(jnp.matmul)
    out: list[jax.Array] = []

    def call() -> None:
        out[:] = [product(left, right)]

    wait, seconds = partial(jax.block_until_ready, out), settings["round_seconds"]
    return repeated(call, wait, images=0, seconds=seconds, flops_per_call=2.0 * size**3)


def chosen(pipeline: PipelineConfig) -> PipelineConfig:
    """Returns the pipeline with the steps per call that training would choose."""
    return automatic.choose_steps_per_call(pipeline, heads_alone=False)


def spec_of(settings: Settings, classes: Mapping[str, tuple[str, ...]] | None = None) -> ModelSpec:
    """Returns the notebook's model for the pictures of a benchmark; `classes` are of all its heads, or of some."""
    classes = classes or {name: get_task(name).classes for name in BASELINE_TASKS}
    return ModelSpec("resnet18", dict(classes), settings["image_size"], "as_notebook", "random")


def _images(settings: Settings) -> np.ndarray:
    shape = (settings["batch"], settings["image_size"], settings["image_size"], 3)
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


# Of what a call takes in a benchmark at most: large batches need no long calls to hide what a call costs.
_PICTURES_PER_CALL = 8192


def step(settings: Settings) -> Measurement:
    """The training step as the loop calls it, several steps a call on a GPU, on pictures that are on the device.

    With `after`, the rows are the outputs of that stage of the trunk; with `steps_per_call`, the device has no say.
    """
    dtype = numerics(settings["precision"])
    spec, task, batch, after = spec_of(settings), settings["task"], settings["batch"], settings.get("after")
    placement = Placement()
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    trained = groups.trained_modules(model.trunk.STAGES, (settings["trainable"],))
    frozen = settings.get("batch_norm", "batch") == "frozen"
    graphdef, _ = steps.graphdefs(model, trained, freeze_batch_norm=frozen)
    step = steps.make_step(
        graphdef, spec, steps.StepOptions(trained, optax.constant_schedule(1e-4), dtype, after=after)
    )
    run = steps.make_train_call(step, placement)
    state = jax.device_put(steps.create_state(model, trained), placement.replicated)
    rows = _images(settings)
    if after is not None:
        shape = jax.eval_shape(lambda x: model.trunk(x, until=after), jnp.zeros(rows.shape, dtype)).shape
        rows = np.random.RandomState(0).random_sample(shape).astype(jnp.dtype(dtype))
    num_steps = settings.get("steps_per_call") or chosen(PipelineConfig()).steps_per_call
    num_steps = max(1, min(num_steps, _PICTURES_PER_CALL // batch))
    labels = np.arange(batch, dtype=np.int32) % 2
    mask = np.ones((num_steps, batch), bool)
    table: Table | None = None
    if num_steps == 1:
        batches = Batches(rows[None], None, {task: labels[None]}, mask)
    else:
        table = Table(rows, {task: labels})
        indices = np.stack([np.random.RandomState(n).permutation(batch) for n in range(num_steps)]).astype(np.int32)
        batches = Batches(None, indices, {}, mask)
    # Split over the devices, as the feeds do it.
    table, batches = jax.device_put(table, placement.table), jax.device_put(batches, placement.batches)
    metrics: Any = None

    def call() -> None:
        nonlocal state, metrics
        state, metrics = run(state, table, batches, tasks=(task,))

    def wait() -> None:
        jax.block_until_ready((state, metrics))

    images, seconds = num_steps * batch, settings["round_seconds"]
    return repeated(call, wait, images=images, seconds=seconds, steps_per_call=num_steps)


def in_evaluation(spec: ModelSpec, dtype: str, placement: Placement) -> tuple[nnx.GraphDef, Any, Any]:
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    model.eval()
    graphdef, *values = split_values(model)
    return graphdef, *jax.device_put(values, placement.replicated)


def forward(settings: Settings) -> Measurement:
    """The evaluation step that validation and prediction take, on a batch that is on the device already."""
    dtype = numerics(settings["precision"])
    spec, task, placement = spec_of(settings), settings["task"], Placement()
    if settings["batch"] % placement.num_devices:
        placement = Placement(jax.devices()[:1])
    graphdef, params, batch_stats = in_evaluation(spec, dtype, placement)
    run = make_predict_step(graphdef, spec, dtype)
    images = jax.device_put(_images(settings), placement.table)
    logits: list[Any] = []

    def call() -> None:
        logits[:] = [run(params, batch_stats, images, tasks=(task,))]

    wait = partial(jax.block_until_ready, logits)
    return repeated(call, wait, images=settings["batch"], seconds=settings["round_seconds"])
