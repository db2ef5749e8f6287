"""Times the same trained model by JAX, ONNX Runtime and int8: a picture's share of a batch, and the first answer.

    python scripts/lab/time_runtimes.py runs/real

All sides take turns in each round, so that other work on the machine meets all of them; medians are taken. One core,
one thread. The first answer is timed from the start of `facefeat predict` to its first line, in processes of their own,
with the pages of the files in memory and, for JAX, its cache of compiled programs filled. At sizes other than the
run's, the run's weights are used at that size: answers then mean little, and times are as they would be.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import tyro

from common import write_measured
from facefeat_jax import avatars
from facefeat_jax.exporting import _onnx, _quantize, export_portable
from facefeat_jax.exporting._agreement import in_float32
from facefeat_jax.exporting.conversion import convert, export
from facefeat_jax.forward import make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.runs.run_folder import Run, open_run
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say

PACKAGES = (*environment.PACKAGES, "onnx", "onnxruntime")
# How many times as fast as JAX.
AIMS = {"ONNX Runtime": 1.25, "int8": 3.0}
FIRST_ANSWER_S = 2.0

Calls = dict[str, Callable[[np.ndarray], Any]]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is timed, how often, and where the results go."""

    run: tyro.conf.Positional[Path]
    """A trained run."""
    sizes: tuple[int, ...] = (64, 224)
    """Sizes of pictures."""
    batch: int = 16
    """Pictures in a batch."""
    rounds: int = 20
    """Rounds of batches."""
    starts: int = 7
    """Rounds of first answers."""
    to: Path | None = None
    """The page of results, and a .json beside it."""


def pictures(size: int, count: int) -> np.ndarray:
    """Returns drawn pictures, uint8 `[count, size, size, 3]`."""
    return np.stack([np.asarray(avatars.draw(2, at).image.resize((size, size))) for at in range(count)])


def session(content: bytes) -> Callable[[np.ndarray], Any]:
    """Returns a function that runs an ONNX file in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda rows: made.run(None, {"images": rows})


def calls_of(run: Run, size: int) -> Calls:
    """Returns what answers pictures of that size, by name."""
    import jax

    spec = dataclasses.replace(run.spec, image_size=size)
    graphdef, params, batch_stats = split_values(run.model)
    params, batch_stats = jax.device_put((params, batch_stats))
    step, tasks = make_predict_step(graphdef, spec, run.model.trunk.dtype, features=True), tuple(spec.classes)

    def by_jax(rows: np.ndarray) -> Any:
        return jax.device_get(step(params, batch_stats, jax.device_put(rows), tasks=tasks))

    plain = _onnx.to_bytes(*in_float32(run.model, spec), {}, "")
    small = _quantize.quantized(plain, pictures(size, 64)).SerializeToString()
    return {"JAX": by_jax, "ONNX Runtime": session(plain), "int8": session(small)}


def per_picture(calls: Calls, rows: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Returns by name the median milliseconds for a picture, of wall and of CPU, and the quartiles of wall."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 2):  # the first two warm up
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call(rows)
            if number > 1:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    found = {}
    for name, values in times.items():
        walls, cpus = ([1000 * value / len(rows) for value in column] for column in zip(*values, strict=True))
        low, _, high = statistics.quantiles(walls, n=4)
        found[name] = {"wall": statistics.median(walls), "low": low, "high": high, "cpu": statistics.median(cpus)}
    return found


def first_answers(models: Mapping[str, Path], picture: Path, starts: int) -> dict[str, dict[str, float]]:
    """Returns by name the seconds from the command to its first line: the median, and the least."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(starts + 1):  # the first fills caches
        for name, model in models.items():
            started = time.perf_counter()
            command = [sys.executable, "-m", "facefeat_jax.cli", "predict", str(model), str(picture)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            if number:
                times[name].append(time.perf_counter() - started)
            _, error = process.communicate()
            assert process.returncode == 0, error
    return {name: {"median": statistics.median(values), "least": min(values)} for name, values in times.items()}


def measure(options: Options) -> dict[str, Any]:
    """Returns the results."""
    busy = psutil.cpu_percent(interval=2)  # before this script itself is at work
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX starts, which counts the cores
    run, found = open_run(options.run), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        avatars.draw(3, 0).image.save(folder / "picture.png")
        for size in options.sizes:
            calls = calls_of(run, size)
            each = per_picture(calls, pictures(size, options.batch), options.rounds)
            say(f"{size} px: {each}")
            at_size, file = folder / str(size), folder / f"{size}.onnx"
            export(options.run, folder / f"{size}.safetensors")
            convert(folder / f"{size}.safetensors", at_size, image_size=size)
            export_portable(at_size, file, "onnx")
            first = first_answers({"JAX": at_size, "ONNX Runtime": file}, folder / "picture.png", options.starts)
            say(f"{size} px: {first}")
            found.append({"size": size, "per_picture": each, "first": first})
    typed = environment.typed("python scripts/lab/time_runtimes.py")
    record = environment.record(typed, PACKAGES, devices="CPU")
    fields = {"batch": options.batch, "rounds": options.rounds, "starts": options.starts, "trunk": run.spec.trunk}
    return {**record, **fields, "busy": busy, "sizes": found}


def page(results: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""
    rows, first = [], []
    for size in results["sizes"]:
        base = size["per_picture"]["JAX"]
        for name, one in size["per_picture"].items():
            ratios = [f"{base[kind] / one[kind]:.2f}" for kind in ("wall", "cpu")]
            spread = f"{one['low']:.2f} to {one['high']:.2f}"
            rows.append((size["size"], name, f"{one['wall']:.2f}", spread, ratios[0], f"{one['cpu']:.2f}", ratios[1]))
        for name, one in size["first"].items():
            first.append((size["size"], name, f"{one['median']:.2f}", f"{one['least']:.2f}"))
    return "\n".join(
        [
            "# The same model by JAX, ONNX Runtime and int8",
            "",
            *environment.record_lines(results),
            "",
            f"A trained {results['trunk']}, on one core with one thread. Other programs kept the machine's "
            f"cores {results['busy']:.0f}% busy when it began; the sides take turns, and the CPU's time is given "
            "beside the wall's.",
            "",
            "The aims: ONNX Runtime 1.25 times and int8 3 times as fast as JAX, and a first answer within 2 seconds. "
            + " ".join(_verdicts(results["sizes"])),
            "",
            f"Milliseconds for a picture, in batches of {results['batch']}: medians of {results['rounds']} rounds, the "
            "quartiles, and how many times as fast as JAX.",
            "",
            *markdown.table(("pixels", "by", "ms", "quartiles", "times", "CPU ms", "CPU times"), rows),
            "",
            "Seconds from the command `facefeat predict MODEL PICTURE` to its first line, of "
            f"{results['starts']} calls:",
            "",
            *markdown.table(("pixels", "by", "median", "least"), first),
            "",
        ]
    )


def _verdicts(sizes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields by size which aims are missed."""
    for size in sizes:
        base = size["per_picture"]["JAX"]["wall"]
        missed = [
            f"{name} with {base / size['per_picture'][name]['wall']:.2f} times"
            for name, aim in AIMS.items()
            if base / size["per_picture"][name]["wall"] < aim
        ]
        if (first := size["first"]["ONNX Runtime"]["median"]) >= FIRST_ANSWER_S:
            missed.append(f"the first answer with {first:.1f} seconds")
        yield f"At {size['size']} pixels " + (f"missed: {', '.join(missed)}." if missed else "all are reached.")


def main() -> None:
    """Runs the command line."""
    write_measured(Options, __doc__, measure, page)


if __name__ == "__main__":
    run_and_exit(main)
