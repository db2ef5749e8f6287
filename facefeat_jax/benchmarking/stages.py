"""What each operation of the benchmark does: the project's own stages, one at a time."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from facefeat_jax.benchmarking.computing import chosen, forward, in_evaluation, matmul, numerics, spec_of, step
from facefeat_jax.benchmarking.measure import Found, Measurement, Settings, serve
from facefeat_jax.config import TrainConfig, load_recipe
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.feeds import Feed, take
from facefeat_jax.data.images import decode_resized
from facefeat_jax.data.pixels import PixelFormat, open_rows
from facefeat_jax.data.placement import Placement
from facefeat_jax.evaluation.evaluate import Evaluator
from facefeat_jax.system.environment import device_names
from facefeat_jax.system.runtime import keep_memory_between_steps
from facefeat_jax.training.data import Inputs, open_data


def decode(settings: Settings) -> Measurement:
    """Encoded pictures of prepared records to uint8 pixels of one size, by threads."""
    splits = [open_split(source, "train", Path(settings["data_dir"])) for source in settings["sources"]]
    wanted = settings["pictures"] // len(splits)
    encoded = [split.read(index) for split in splits for index in range(min(wanted, len(split)))]
    return decode_all(encoded.__getitem__, len(encoded), settings["image_size"], settings["threads"])


def decode_all(read: Callable[[int], bytes], count: int, size: int, threads: int) -> Measurement:
    """The decoding of `count` pictures, each round all of them; `read` returns the file of a number."""
    pixels = np.empty((count, size, size, 3), np.uint8)

    def one(number: int) -> None:
        pixels[number] = decode_resized(read(number), size, "as_notebook")

    def run() -> Found:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, range(count)):
                pass
        return {"images": count}

    run()  # the files are in the page cache, and the libraries loaded, for every side
    return Measurement(run, about={"threads": threads})


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


class TrainingFeed:
    """The training feed of a run, as the loop opens it, and the first of its calls over and over."""

    def __init__(self, config: TrainConfig, batches: int):
        pipeline = chosen(config.pipeline)
        data = open_data(config.data, config.batches, seed=config.seed)
        pixels = PixelFormat(config.data.image_size, config.data.decode)
        inputs = Inputs(pipeline, pixels, data, None, Placement())
        self.name = inputs.feed
        self._steps = data.stream
        self._feed, _ = inputs.open()
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
    started = time.perf_counter()
    config = config_of(settings, batch_size=settings["batch"])
    opened = TrainingFeed(config, settings["batches"])

    def run() -> Found:
        for rows in opened.batches():
            jax.block_until_ready(rows)
        return {"images": opened.images}

    threads = config.pipeline.feed_threads
    about = {"feed": opened.name, "threads": threads, "open_seconds": time.perf_counter() - started}
    run()
    return Measurement(run, about=about)


def validation(settings: Settings) -> Measurement:
    """Prepared records to a head's accuracy and loss, with a model in memory."""
    dtype = numerics(settings["precision"])
    config = config_of(settings, batch_size=settings["batch"], dtype=dtype, tasks=(settings["task"],))
    data, placement = open_data(config.data, config.batches, seed=config.seed), Placement()
    spec = spec_of(settings, data.classes)
    graphdef, params, batch_stats = in_evaluation(spec, dtype, placement)
    evaluator = Evaluator(graphdef, spec, data.validation, placement, batch_size=settings["batch"], dtype=dtype)
    pixels, pipeline = PixelFormat(config.data.image_size, config.data.decode), config.pipeline
    rows = open_rows(data.validation, pixels, pipeline.packed)
    opened = Feed(data.validation, placement, rows, None, pipeline.feed_threads, pipeline.feed_prefetch)

    def run() -> Found:
        tasks = config.data.tasks
        pictures = evaluator.labelled(tasks)
        results = evaluator.figures(evaluator.logits(opened, params, batch_stats, pictures), pictures, tasks)
        return {"images": sum(result.n for result in results.values())}

    started = time.perf_counter()
    run()
    return Measurement(run, about={"first_call_seconds": time.perf_counter() - started})


def job(settings: Settings) -> Measurement:
    """A whole training run, prepared records to results table and report, as `facefeat train` does it."""

    def run() -> Found:
        from facefeat_jax.commands import train
        from facefeat_jax.runs import run_folder
        from facefeat_jax.runs.logs import read_lines
        from facefeat_jax.system.runtime import start_up

        imported = time.perf_counter()
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
            "compile_seconds": results["timings"]["compile"],
        }

    return Measurement(run)


OPERATIONS: dict[str, Callable[[Settings], Measurement]] = {
    operation.__name__: operation for operation in (matmul, decode, feed, step, forward, validation, job)
}


def _device() -> Found:
    """Returns what was computed on, and the most memory that it held, where it says."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    about = {"device": jax.default_backend(), "devices": device_names()}
    return about if peak is None else {**about, "device_peak_bytes": peak}


def main(operations: Mapping[str, Callable[[Settings], Measurement]] = OPERATIONS) -> None:
    """Does what every command does before it computes, then what standard input asks for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keep_memory_between_steps()
    serve(operations, _device)


if __name__ == "__main__":
    main()
