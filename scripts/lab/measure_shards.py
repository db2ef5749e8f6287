"""Kills workers of `predict --out-folder`, and counts what two do in the time of one.

    python scripts/lab/measure_shards.py kills random ray scaling

Each part is written to disk when it is done; the others stay as they were. `scaling` wants a quiet machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import tyro
from flax import nnx

from facefeat_jax.avatars import draw
from facefeat_jax.config import load_recipe
from facefeat_jax.exporting import export_portable
from facefeat_jax.models.registry import ARCHITECTURES, Architecture
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.runs.run_folder import create_from_weights
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.files import write_whole
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say

PACKAGES = (*environment.PACKAGES, "onnxruntime", "pyarrow", "fsspec", "ray")
CLASSES = {"gender": ("female", "male"), "shirt": ("black", "blue", "red")}
FACEFEAT = [sys.executable, "-c", "import sys; from facefeat_jax.cli import main; sys.exit(main(sys.argv[1:]))"]
ROUNDS = 20
TURNS = 3


@dataclass(frozen=True)
class Options:
    """What to measure, and where the results go."""

    parts: tyro.conf.Positional[tuple[Literal["kills", "random", "ray", "scaling"], ...]]
    """`kills`: many pictures, 4 workers, 3 of them killed. `random`: 4 workers killed at random, twenty times. `ray`:
    the same rows on a local Ray cluster. `scaling`: two workers on a core each against one."""
    pictures: int = 100_000
    """Of `kills`."""
    out: Path = Path("docs/benchmarks/shards")
    """The results: a .json and a .md of this name."""


def make_shards(folder: Path, shards: int, pictures: int, size: int) -> Path:
    """Makes tar files that hold the same sixteen drawn pictures again and again, under names of their own."""
    folder.mkdir()
    drawn = []
    for number in range(16):
        file = io.BytesIO()
        draw(2, number).image.resize((size, size)).save(file, "PNG")
        drawn.append(file.getvalue())
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:04}.tar", "w") as tar:
            for number in range(pictures):
                info = tarfile.TarInfo(f"{number:05}.png")
                info.size = len(drawn[(number + shard) % 16])
                tar.addfile(info, io.BytesIO(drawn[(number + shard) % 16]))
    return folder


def make_run(folder: Path, trunk: str, size: int) -> Path:
    """Makes a run folder with random weights."""
    spec = ModelSpec(trunk, CLASSES, size, "upright", "random")
    config = load_recipe("baseline").replace(run=folder, data_dir=folder / "nowhere")
    create_from_weights(folder, spec, spec.build(rngs=nnx.Rngs(0)), config)
    return folder


def make_tiny(folder: Path) -> Path:
    """Makes an ONNX file of a ResNet with one narrow block a stage, for pictures of 32 pixels."""
    trunk = Architecture("small", lambda **o: ResNet((1, 1, 1, 1), width=8, **o), 64, ResNet.STAGES, ResNet.LAST, "lab")
    ARCHITECTURES["small"] = trunk
    export_portable(make_run(folder / "run", "small", 32), folder / "tiny.onnx", "onnx")
    return folder / "tiny.onnx"


def start(model: Path, data: Path, out: Path, index: int, number: int, core: int | None = None) -> subprocess.Popen:
    """Starts a worker, on one core where that is given."""
    words = ["predict", model, data, "--out-folder", out, "--worker-index", index, "--num-workers", number]
    pin = [] if core is None else ["taskset", "-c", str(core)]
    return subprocess.Popen([*pin, *FACEFEAT, *map(str, words)], stderr=subprocess.DEVNULL)


def digest(folder: Path) -> str:
    """Returns a digest of all files in a folder, with their names."""
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        whole.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return whole.hexdigest()


def finished(folder: Path) -> int:
    """Returns how many shards have their answers."""
    return len(list(folder.glob("[!_.]*"))) if folder.exists() else 0


def kills(folder: Path, pictures: int) -> dict[str, Any]:
    """Answers many pictures with 4 workers of which 3 are killed and started again, and without kills."""
    shards = 100
    model, data = make_tiny(folder), make_shards(folder / "data", shards, pictures // shards, 32)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(start(model, data, folder / "out", index, 4)) for index in range(4)]
        memory: list[int] = []
        killed: list[int] = []
        while workers[3].poll() is None or any(worker.poll() is None for worker in workers):
            with contextlib.suppress(psutil.Error):
                memory.append(psutil.Process(workers[3].pid).memory_info().rss)
            if len(killed) < 3 and finished(folder / "out") > 15 * (len(killed) + 1):
                index = len(killed)
                workers[index].kill()
                workers[index].wait()
                killed.append(finished(folder / "out"))
                workers[index] = stack.enter_context(start(model, data, folder / "out", index, 4))
            time.sleep(0.5)
    seconds = time.monotonic() - started
    codes = [worker.returncode for worker in workers]
    for worker in [start(model, data, folder / "whole", index, 2) for index in range(2)]:
        worker.wait()
    rows = sum(_rows(file) for file in (folder / "out").glob("*.parquet"))
    settled = memory[len(memory) // 5 :]
    return {
        "pictures": rows,
        "shards": shards,
        "killed_after_shards": killed,
        "exit_codes": codes,
        "seconds_with_kills": round(seconds, 1),
        "same_bytes": digest(folder / "out") == digest(folder / "whole"),
        "mib_after_a_fifth": round(settled[0] / 2**20),
        "mib_at_most_afterwards": round(max(settled) / 2**20),
        "mib_at_the_end": round(settled[-2] / 2**20),
    }


def _rows(file: Path) -> int:
    import pyarrow.parquet

    return pyarrow.parquet.read_metadata(file).num_rows


def at_random(folder: Path) -> dict[str, Any]:
    """Kills each of 4 workers at random, twenty times, and lets them finish then."""
    model, data = make_tiny(folder), make_shards(folder / "data", 40, 250, 32)
    start(model, data, folder / "whole", 0, 1).wait()
    chance, during, out = random.Random(0), [], folder / "out"
    for _ in range(ROUNDS):
        workers = [start(model, data, out, index, 4) for index in range(4)]
        ends = {worker: time.monotonic() + chance.uniform(1.0, 8.0) for worker in workers}
        for worker, end in sorted(ends.items(), key=lambda item: item[1]):
            time.sleep(max(0.0, end - time.monotonic()))
            during.append(worker.poll() is None)
            worker.kill()
            worker.wait()
        if finished(out) == 40:  # a set that is done is begun anew
            if digest(out) != digest(folder / "whole"):
                return {"rounds": ROUNDS, "same_bytes": False}
            for file in list(out.iterdir())[::2]:
                file.unlink()
    for worker in [start(model, data, out, index, 4) for index in range(4)]:
        worker.wait()
    left = [file.name for file in out.iterdir() if file.name.startswith(".")]
    return {
        "rounds": ROUNDS,
        "kills": len(during),
        "while_running": sum(during),
        "left_over_files": len(left),
        "same_bytes": digest(out) == digest(folder / "whole"),
    }


def on_ray(folder: Path) -> dict[str, Any]:
    """Answers shards on a local Ray cluster of two workers, and by one process."""
    model, data = make_tiny(folder), make_shards(folder / "data", 8, 100, 32)
    start(model, data, folder / "whole", 0, 1).wait()
    words = ["predict", model, data, "--out-folder", folder / "out", "--num-workers", "2", "--ray"]
    started = time.monotonic()
    code = subprocess.run([*FACEFEAT, *map(str, words)], stderr=subprocess.DEVNULL).returncode
    same = digest(folder / "out") == digest(folder / "whole")
    return {"exit_code": code, "seconds": round(time.monotonic() - started, 1), "workers": 2, "same_bytes": same}


def scaling(folder: Path) -> dict[str, Any]:
    """Compares two workers on a core each with one: pictures per second from a worker's first shard to its last."""
    model, data = make_run(folder / "run", "resnet18", 64), make_shards(folder / "data", 24, 64, 64)
    cores, load = sorted(os.sched_getaffinity(0))[:2], round(os.getloadavg()[0], 1)

    def rate(number: int, name: str) -> tuple[float, float]:
        """Returns pictures per second, and the processor's seconds for each worker's half of the shards."""
        out, before = folder / name, resource.getrusage(resource.RUSAGE_CHILDREN)
        # Worker `index` of 2 takes half of the shards; one alone gets as many, so that both begin and end alike.
        workers = [start(model, data, out, index, 2, cores[index]) for index in range(number)]
        for worker in workers:
            assert worker.wait() == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rates = []
        for index in range(number):
            ends = sorted(os.stat(out / f"{shard:04}.parquet").st_mtime for shard in range(index, 24, 2))
            rates.append((len(ends) - 1) * 64 / (ends[-1] - ends[0]))
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return sum(rates), spent / number

    rate(2, "compiled")  # fills the cache of compiled programs
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for turn in range(TURNS):
        for number in found:
            found[number].append(rate(number, f"{number}-{turn}"))
    (ones, one_seconds), (twos, two_seconds) = (
        (statistics.median(rate for rate, _ in runs), statistics.median(spent for _, spent in runs))
        for runs in found.values()
    )
    return {
        "pictures_per_second_of_one": [round(rate, 1) for rate, _ in found[1]],
        "pictures_per_second_of_two": [round(rate, 1) for rate, _ in found[2]],
        "ratio": round(twos / ones, 2),
        "processor_seconds_of_one": [round(spent, 1) for _, spent in found[1]],
        "processor_seconds_of_each_of_two": [round(spent, 1) for _, spent in found[2]],
        "ratio_by_processor_seconds": round(2 * one_seconds / two_seconds, 2),
        "load_average_before": load,
    }


PARTS = {"random": at_random, "ray": on_ray, "scaling": scaling}


def report(result: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""
    lines = ["# Shards and workers", "", "[`facefeat predict --out-folder`](../many_machines.md).", ""]
    for name, part in result["parts"].items():
        found = {key: value for key, value in part.items() if key != "measured"}
        rows = [(key.replace("_", " "), json.dumps(value)) for key, value in found.items()]
        lines += [f"## {TITLES[name]}", "", *environment.record_lines(part["measured"]), "", *NOTES[name], ""]
        lines += [*markdown.table(("what", "measured"), rows), ""]
    return "\n".join(lines)


TINY = (
    "A ResNet with one narrow block a stage, random weights, 32 pixels, ONNX Runtime; tar files in which sixteen drawn "
    "pictures stand again and again under names of their own."
)
TITLES = {
    "kills": "Four workers, three of them killed",
    "random": "Workers killed at random, twenty times",
    "ray": "The same rows on Ray",
    "scaling": "Two workers against one",
}
NOTES = {
    "kills": [
        f"{TINY} Workers 0, 1 and 2 get SIGKILL and are started again with the same command. All files together are "
        "compared, byte for byte, with those of a run without kills. Memory is that of worker 3, which was not killed."
    ],
    "random": [
        f"{TINY} 40 shards. Each of four workers gets SIGKILL 1 to 8 seconds after its start; where all are done, "
        "the files are compared and half of them removed. At the end the workers finish, and all is compared."
    ],
    "ray": [f"{TINY} A local cluster, against one process."],
    "scaling": [
        "ResNet18, random weights, 64 pixels, JAX, workers bound to a core each by `taskset`; pictures a second from "
        "a worker's first shard to its last, three runs of each in turn; the ratios are those of the medians. That by "
        "processor seconds (of the whole command) leaves out what other programs on the machine took."
    ],
}


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    file = options.out.with_suffix(".json")
    result: dict[str, Any] = {"parts": {}}
    with contextlib.suppress(FileNotFoundError):
        result = json.loads(file.read_text())
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            part = kills(Path(folder), options.pictures) if name == "kills" else PARTS[name](Path(folder))
        recorded = environment.record(f"python scripts/lab/measure_shards.py {name}", PACKAGES, devices="CPU")
        result["parts"][name] = {"measured": recorded, **part}
        say(f"{name}: {json.dumps(part)}")
        write_whole(file, (json.dumps(result, indent=1) + "\n").encode())
        write_whole(options.out.with_suffix(".md"), report(result).encode())


if __name__ == "__main__":
    run_and_exit(main)
