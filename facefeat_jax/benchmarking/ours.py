"""This project's side of the benchmark: what each operation does. The main of its worker processes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.benchmarking.memory import anonymous_bytes
from facefeat_jax.benchmarking.pictures import read_listing
from facefeat_jax.benchmarking.worker import Measurement, Once, Repeated, Settings, serve
from facefeat_jax.config import TrainConfig, load_recipe
from facefeat_jax.errors import UserError

_PRECISIONS = {"float32": ("float32", "highest"), "tf32": ("float32", "tensorfloat32"), "bf16": ("bfloat16", "default")}


def _numerics(precision: str) -> str:
    """Sets the precision of products in this process; returns the dtype of the computation."""
    from facefeat_jax.runtime import set_numerics

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
    """Picture files to uint8 pixels of one size, by threads."""
    from facefeat_jax.data.images import decode_resized

    files = read_listing(Path(settings["listing"])).files("train")[: settings["pictures"]]
    size, threads = settings["image_size"], settings["threads"]
    pixels = np.empty((len(files), size, size, 3), np.uint8)

    def one(number: int) -> None:
        pixels[number] = decode_resized(files[number].read_bytes(), size, "as_notebook")

    def run() -> dict[str, Any]:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, range(len(files))):
                pass
        return {"images": len(files)}

    run()  # the files are in the page cache, and the libraries loaded, for every side
    return Once(run, about={"threads": threads})


def _config(settings: Settings, **fields: Any) -> TrainConfig:
    """Returns the recipe (the baseline's if none is named) on the benchmark's data."""
    recipe = load_recipe(settings.get("recipe", "baseline"))
    given = {
        "data_dir": Path(settings["data_dir"]),
        "sources": tuple(settings["sources"]),
        "image_size": settings["image_size"],
        "weights": "random",  # the figures are of speed; a file of weights need not be at hand
        **settings.get("fields", {}),
        **fields,
    }
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(set(given) - known):
        raise UserError(f"this version has no setting {', '.join(unknown)}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return dataclasses.replace(recipe, **values)


def _batches(config: TrainConfig) -> Iterator[Any]:
    """Yields the batches of a run, as its loop takes them."""
    from facefeat_jax.data import feeds
    from facefeat_jax.training.loop import open_data

    data = open_data(config)
    return feeds.stream(
        data.stream,
        data.training,
        image_size=config.image_size,
        decode=config.decode,
        threads=config.feed_threads,
        prefetch=config.feed_prefetch,
    )


def feed(settings: Settings) -> Measurement:
    """Prepared records to batches on the device, nothing computed; a round begins anew."""
    import jax

    config = _config(settings, batch_size=settings["batch"])
    on_host = jax.default_backend() == "cpu"

    def run() -> dict[str, Any]:
        images = 0
        for batch in itertools.islice(_batches(config), settings["batches"]):
            images += int(batch.mask.sum())
            if not on_host:
                jax.block_until_ready(jax.device_put(batch.images))
        return {"images": images}

    run()
    return Once(run, about={"threads": config.feed_threads}, after=_device_memory)


def feed_memory(settings: Settings) -> Measurement:
    """The same in a process that does nothing else; the round's figure is the most memory it held."""
    config = _config(settings, batch_size=settings["batch"])

    def run() -> dict[str, Any]:
        most, images = 0, 0
        for number, batch in enumerate(itertools.islice(_batches(config), settings["batches"])):
            images += int(batch.mask.sum())
            if number % 10 == 9:
                most = max(most, anonymous_bytes() or 0)
        if not most:
            raise UserError("this system doesn't say how much anonymous memory a process holds")
        return {"images": images, "feed_anonymous_bytes": most}

    return Once(run, about={"before_bytes": anonymous_bytes()})


def _spec(settings: Settings):
    from facefeat_jax.spec import ModelSpec
    from facefeat_jax.tasks import TASKS

    classes = {name: task.classes for name, task in TASKS.items()}
    return ModelSpec("resnet18", classes, settings["image_size"], "as_notebook", "random")


def _images(settings: Settings) -> np.ndarray:
    shape = (settings["batch"], settings["image_size"], settings["image_size"], 3)
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def step(settings: Settings) -> Measurement:
    """The training step that the loop takes, on a batch that is on the device already."""
    import jax
    import optax
    from flax import nnx

    from facefeat_jax.benchmarking.flops import step_flops
    from facefeat_jax.factory import create_model
    from facefeat_jax.training import groups, steps

    dtype = _numerics(settings["precision"])
    spec, task, batch = _spec(settings), settings["task"], settings["batch"]
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    trained = groups.trained_modules(model.trunk.STAGES, (settings["trainable"],))
    graphdef, _ = steps.graphdefs(model, trained, freeze_batch_norm=settings.get("batch_norm", "batch") == "frozen")
    run = steps.make_train_step(graphdef, spec, trained, optax.constant_schedule(1e-4), dtype)
    state = steps.create_state(model, trained)
    labels = {task: np.arange(batch, dtype=np.int32) % 2}
    given = jax.device_put((_images(settings), labels, np.ones(batch, bool)))
    metrics: Any = None

    def call() -> None:
        nonlocal state, metrics
        state, metrics = run(state, *given, tasks=(task,))

    return Repeated(
        call,
        lambda: jax.block_until_ready((state, metrics)),
        images=batch,
        seconds=settings["round_seconds"],
        about={"flops_per_image": step_flops(spec, (task,), trained)},
        after=_device_memory,
    )


def forward(settings: Settings) -> Measurement:
    """The evaluation step that validation and prediction take, on a batch that is on the device already."""
    import jax
    from flax import nnx

    from facefeat_jax.benchmarking.flops import forward_flops
    from facefeat_jax.evaluation.predict_step import make_predict_step
    from facefeat_jax.factory import create_model
    from facefeat_jax.models.values import split_values

    dtype = _numerics(settings["precision"])
    spec, task = _spec(settings), settings["task"]
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    model.eval()
    graphdef, params, batch_stats = split_values(model)
    run = make_predict_step(graphdef, spec, dtype)
    images = jax.device_put(_images(settings))
    logits: Any = None

    def call() -> None:
        nonlocal logits
        logits = run(params, batch_stats, images, tasks=(task,))

    return Repeated(
        call,
        lambda: jax.block_until_ready(logits),
        images=settings["batch"],
        seconds=settings["round_seconds"],
        about={"flops_per_image": forward_flops(spec, (task,))},
        after=_device_memory,
    )


def validation(settings: Settings) -> Measurement:
    """Prepared records to a head's accuracy and loss, with a model in memory."""
    from flax import nnx

    from facefeat_jax.evaluation.evaluate import Evaluator
    from facefeat_jax.factory import create_model
    from facefeat_jax.models.values import split_values
    from facefeat_jax.training.loop import open_data

    dtype = _numerics(settings["precision"])
    config = _config(settings, batch_size=settings["batch"], dtype=dtype, tasks=(settings["task"],))
    data = open_data(config)
    spec = dataclasses.replace(_spec(settings), classes=data.classes)
    model = create_model(tasks=spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    model.eval()
    graphdef, params, batch_stats = split_values(model)
    evaluator = Evaluator(graphdef, spec, data.validation, config)

    def run() -> dict[str, Any]:
        results = evaluator.results(params, batch_stats, config.tasks)
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
        from facefeat_jax import run_folder
        from facefeat_jax.runtime import use_compilation_cache
        from facefeat_jax.training.logs import read_lines
        from facefeat_jax.training.loop import train

        imported = time.perf_counter()
        compiling = _count_compiling()
        use_compilation_cache()
        config = _config(settings, run=Path(settings["work"]) / "run")
        results = train(config)
        passes = [line for line in read_lines(config.run / run_folder.METRICS) if line["event"] == "pass"]
        trained = sum(one["images_per_s"] * one["seconds"] for one in passes)
        return {
            "images": round(trained) + sum(entry["n"] for entry in results["history"]),
            "epochs": config.epochs,
            "train_call_seconds": time.perf_counter() - imported,
            "loop_seconds": results["seconds"],
            "passes_seconds": sum(one["seconds"] for one in passes),
            "accuracy": {task: head["accuracy"] for task, head in results["heads"].items()},
            **compiling,
        }

    return Once(run, after=_device_memory)


OPERATIONS: dict[str, Callable[[Settings], Measurement]] = {
    operation.__name__: operation for operation in (matmul, decode, feed, feed_memory, step, forward, validation, job)
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    serve(OPERATIONS)
