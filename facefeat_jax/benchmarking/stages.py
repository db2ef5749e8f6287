"""What each operation of the benchmark does: the project's own stages, one at a time."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facefeat_jax.benchmarking.measure import (
    Measurement,
    Once,
    Repeated,
    Settings,
    answers,
    host_memory,
)
from facefeat_jax.config import PipelineConfig, TrainConfig, load_recipe
from facefeat_jax.system.allocator import keep_freed_memory
from facefeat_jax.system.environment import device_names
from facefeat_jax.system.errors import UserError

if TYPE_CHECKING:
    from facefeat_jax.runs.spec import ModelSpec

_PRECISIONS = {"float32": ("float32", "highest"), "tf32": ("float32", "tensorfloat32"), "bf16": ("bfloat16", "default")}


def _numerics(precision: str) -> str:
    """Sets the precision of products in this process; returns the dtype of the computation."""
    from facefeat_jax.system.runtime import set_numerics

    if precision == "auto":
        import jax

        precision = "float32" if jax.default_backend() == "cpu" else "bf16"
    dtype, products = _PRECISIONS[precision]
    set_numerics(dtype, "float32", products)
    return dtype


def _device_memory() -> dict[str, Any]:
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return {"device_peak_bytes": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}


def matmul(settings: Settings) -> Measurement:
    """A square matrix product: the most that this side gets out of the machine."""
    import jax
    import jax.numpy as jnp

    dtype = _numerics(settings["precision"])
    size = settings["size"]
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    product = jax.jit(jnp.matmul)
    out: list[jax.Array] = []

    def call() -> None:
        out[:] = [product(left, right)]

    return Repeated(
        call,
        lambda: jax.block_until_ready(out),
        images=0,
        seconds=settings["round_seconds"],
        about={"flops_per_call": 2.0 * size**3},
    )


def decode(settings: Settings) -> Measurement:
    """Encoded pictures of prepared records to uint8 pixels of one size, by threads."""
    from facefeat_jax.data.dataset import open_split

    splits = [open_split(source, "train", Path(settings["data_dir"])) for source in settings["sources"]]
    wanted = settings["pictures"] // len(splits)
    encoded = [split.read(index) for split in splits for index in range(min(wanted, len(split)))]
    return decode_all(encoded.__getitem__, len(encoded), settings["image_size"], settings["threads"])


def decode_all(read: Callable[[int], bytes], count: int, size: int, threads: int) -> Measurement:
    """The decoding of `count` pictures, each round all of them; `read` returns the file of a number."""
    from facefeat_jax.data.images import decode_resized

    pixels = np.empty((count, size, size, 3), np.uint8)

    def one(number: int) -> None:
        pixels[number] = decode_resized(read(number), size, "as_notebook")

    def run() -> dict[str, Any]:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, range(count)):
                pass
        return {"images": count}

    run()  # the files are in the page cache, and the libraries loaded, for every side
    return Once(run, about={"threads": threads})


def config_of(settings: Settings, **fields: Any) -> TrainConfig:
    """Returns the recipe (the baseline's if none is named) on the benchmark's data."""
    recipe = load_recipe(settings.get("recipe", "baseline"))
    given = {
        "data_dir": Path(settings["data_dir"]),
        "sources": tuple(settings["sources"]),
        "image_size": settings["image_size"],
        "weights": settings.get("weights", "random"),  # the figures are of speed
        **settings.get("fields", {}),
        **fields,
    }
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return recipe.replace(**values)


def _chosen(pipeline: PipelineConfig) -> PipelineConfig:
    """Returns the pipeline with the steps per call that training would choose."""
    from facefeat_jax.training import _automatic as automatic

    return automatic.choose_steps_per_call(pipeline, heads_alone=False)


class TrainingFeed:
    """The training feed of a run, as the loop opens it, and the first of its calls over and over."""

    def __init__(self, config: TrainConfig, batches: int):
        import jax

        from facefeat_jax.data.feeds import take
        from facefeat_jax.data.pixels import PixelFormat
        from facefeat_jax.data.placement import Placement
        from facefeat_jax.training._inputs import Inputs
        from facefeat_jax.training.data import open_data

        pipeline, tasks = _chosen(config.pipeline), config.data.tasks
        data = open_data(config.data, config.batches, seed=config.seed)
        pixels = PixelFormat(config.data.image_size, config.data.decode)
        inputs = Inputs(pipeline, tasks, pixels, data.training, data.validation, None, Placement())
        self.name = inputs.feed
        self._steps = data.stream
        self._feed, _ = inputs.open(None)
        calls = (call for pass_ in data.stream.passes for call in pass_.calls(pipeline.steps_per_call))
        self._calls = list(itertools.islice(calls, max(1, batches // pipeline.steps_per_call)))
        self._gather = jax.jit(take, static_argnums=2)
        wanted = [step for call in self._calls for step in range(call.first_step, call.end_step)]
        self.images = sum(int(data.stream[step].mask.sum()) for step in wanted)

    def batches(self) -> Iterator[Any]:
        """Yields the rows of each call, on the device; those of a table are gathered from it."""
        for call, batches in zip(self._calls, self._feed(self._steps, self._calls), strict=True):
            table = self._feed.table
            yield batches.rows if table is None else self._gather(table, batches, call.tasks)[0]


def feed(settings: Settings) -> Measurement:
    """Prepared records to batches on the device, nothing computed; a round begins anew."""
    import jax

    started = time.perf_counter()
    config = config_of(settings, batch_size=settings["batch"])
    opened = TrainingFeed(config, settings["batches"])

    def run() -> dict[str, Any]:
        for rows in opened.batches():
            jax.block_until_ready(rows)
        return {"images": opened.images}

    threads = config.pipeline.feed_threads
    about = {"feed": opened.name, "threads": threads, "open_seconds": time.perf_counter() - started}
    run()
    return Once(run, about=about, after=_device_memory)


def spec_of(settings: Settings, classes: Mapping[str, tuple[str, ...]] | None = None) -> ModelSpec:
    """Returns the notebook's model for the pictures of a benchmark; `classes` are of all its heads, or of some."""
    from facefeat_jax.runs.spec import ModelSpec
    from facefeat_jax.tasks import BASELINE_TASKS, get_task

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
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from facefeat_jax.data.feeds import Batches, Table
    from facefeat_jax.data.placement import Placement
    from facefeat_jax.factory import create_model
    from facefeat_jax.training import _groups as groups
    from facefeat_jax.training import steps

    dtype = _numerics(settings["precision"])
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
    num_steps = settings.get("steps_per_call") or _chosen(PipelineConfig()).steps_per_call
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

    return Repeated(
        call,
        lambda: jax.block_until_ready((state, metrics)),
        images=num_steps * batch,
        seconds=settings["round_seconds"],
        about={"steps_per_call": num_steps},
        after=_device_memory,
    )


def forward(settings: Settings) -> Measurement:
    """The evaluation step that validation and prediction take, on a batch that is on the device already."""
    import jax
    from flax import nnx

    from facefeat_jax.data.placement import Placement
    from facefeat_jax.factory import create_model
    from facefeat_jax.forward import make_predict_step
    from facefeat_jax.models._values import split_values

    dtype = _numerics(settings["precision"])
    spec, task = spec_of(settings), settings["task"]
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    model.eval()
    graphdef, params, batch_stats = split_values(model)
    run = make_predict_step(graphdef, spec, dtype)
    placement = Placement()
    if settings["batch"] % placement.num_devices:
        placement = Placement(jax.devices()[:1])
    params, batch_stats = jax.device_put((params, batch_stats), placement.replicated)
    images = jax.device_put(_images(settings), placement.table)
    logits: Any = None

    def call() -> None:
        nonlocal logits
        logits = run(params, batch_stats, images, tasks=(task,))

    return Repeated(
        call,
        lambda: jax.block_until_ready(logits),
        images=settings["batch"],
        seconds=settings["round_seconds"],
        after=_device_memory,
    )


def validation(settings: Settings) -> Measurement:
    """Prepared records to a head's accuracy and loss, with a model in memory."""
    import jax
    from flax import nnx

    from facefeat_jax.data.feeds import Feed
    from facefeat_jax.data.pixels import PixelFormat, open_rows
    from facefeat_jax.data.placement import Placement
    from facefeat_jax.evaluation.evaluate import Evaluator
    from facefeat_jax.factory import create_model
    from facefeat_jax.models._values import split_values
    from facefeat_jax.training.data import open_data

    dtype = _numerics(settings["precision"])
    config = config_of(settings, batch_size=settings["batch"], dtype=dtype, tasks=(settings["task"],))
    data, placement = open_data(config.data, config.batches, seed=config.seed), Placement()
    spec = spec_of(settings, data.classes)
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    model.eval()
    graphdef, *values = split_values(model)
    params, batch_stats = jax.device_put(values, placement.replicated)
    evaluator = Evaluator(graphdef, spec, data.validation, placement, batch_size=settings["batch"], dtype=dtype)
    pixels, pipeline = PixelFormat(config.data.image_size, config.data.decode), config.pipeline
    rows = open_rows(data.validation, pixels, pipeline.packed)
    opened = Feed(data.validation, placement, rows, None, pipeline.feed_threads, pipeline.feed_prefetch)

    def run() -> dict[str, Any]:
        tasks = config.data.tasks
        pictures = evaluator.labelled(tasks)
        results = evaluator.figures(evaluator.logits(opened, params, batch_stats, pictures), pictures, tasks)
        return {"images": sum(result.n for result in results.values())}

    started = time.perf_counter()
    run()
    return Once(run, about={"first_call_seconds": time.perf_counter() - started}, after=_device_memory)


# What JAX reports of its own compiling, in seconds. Reading a program from the persistent cache counts as compiling.
_COMPILE_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_seconds",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_seconds",
    "/jax/core/compile/backend_compile_duration": "compile_seconds",
}


def _count_compiling() -> dict[str, float]:
    """Returns sums that go on growing as this process compiles."""
    from jax import monitoring

    sums = dict.fromkeys(_COMPILE_EVENTS.values(), 0.0)

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILE_EVENTS:
            sums[_COMPILE_EVENTS[event]] += duration_secs

    monitoring.register_event_duration_secs_listener(listen)
    return sums


def job(settings: Settings) -> Measurement:
    """A whole training run, prepared records to results table and report, as `facefeat train` does it."""

    def run() -> dict[str, Any]:
        from facefeat_jax.commands import train
        from facefeat_jax.runs import run_folder
        from facefeat_jax.runs.logs import read_lines
        from facefeat_jax.system.runtime import start_up

        imported = time.perf_counter()
        compiling = _count_compiling()
        start_up()
        config = config_of(settings, run=Path(settings["work"]) / "run")
        results = train(config)
        passes = [line for line in read_lines(config.run / run_folder.METRICS) if line["event"] == "pass"]
        trained = sum(pass_["images_per_s"] * pass_["seconds"] for pass_ in passes)
        return {
            "images": round(trained) + sum(entry["n"] for entry in results["history"]),
            "epochs": config.batches.epochs,
            "train_call_seconds": time.perf_counter() - imported,
            "loop_seconds": results["seconds"],
            "timings": results["timings"],
            "accuracy": {task: head["accuracy"] for task, head in results["heads"].items()},
            **compiling,
        }

    return Once(run, after=_device_memory)


OPERATIONS: dict[str, Callable[[Settings], Measurement]] = {
    operation.__name__: operation for operation in (matmul, decode, feed, step, forward, validation, job)
}


def prepare_process() -> None:
    """Does what every command does before it computes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keep_freed_memory()


def main() -> None:
    """Measures what the JSON on standard input asks for: `operation`, `settings`, `rounds`; answers in JSON."""
    prepare_process()
    out = answers()
    request = json.load(sys.stdin)
    try:
        measurement = OPERATIONS[request["operation"]](request["settings"])
        found: dict[str, Any] = {
            "about": measurement.about,
            "rounds": [measurement.round() for _ in range(request["rounds"])],
        }
        found["after"] = {**host_memory(), **measurement.close()}
    except UserError as error:
        found = {"rounds": [], "error": " ".join(str(error).split())}
    except Exception as error:  # the other stages are measured without this one
        traceback.print_exc()
        found = {"rounds": [], "error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    import jax

    json.dump({**found, "device": jax.default_backend(), "devices": device_names()}, out)
    out.flush()


if __name__ == "__main__":
    main()
