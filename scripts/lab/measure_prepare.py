"""Compares `facefeat prepare` with decoding each of its pictures once, on all cores, in turn.

    python scripts/lab/measure_prepare.py --pictures 20000 --rounds 5 [--out docs/benchmarks/prepare.md]

The pictures are made: 200 of 18 kB and 224 pixels under many names, each name read and decoded. Decoding is Pillow's to
RGB, and nothing else, in a thread for each core, of files in the page cache. Of `prepare` there are two times: the
whole command, and what it says itself, without the second or two in which it starts.
"""

from __future__ import annotations

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarking.run import busy_cores
from benchmarking.synthetic import SIDE, write_faces
from common import run_command_line, write_results
from facefeat_jax.system import environment
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.markdown import table
from facefeat_jax.system.progress import say
from facefeat_jax.system.runtime import cores

_PACKAGES = ("facefeat-jax", "numpy", "pillow", "array-record", "tensorflow-datasets")


@dataclass(frozen=True)
class Arguments:
    """Measures both in turn."""

    pictures: int = 20_000
    """How many are prepared; a sixth of them is for validation."""
    rounds: int = 5
    """Of each."""
    out: Path | None = None
    """Page to write, with the results as JSON beside it."""

    def run(self) -> int:
        rounds: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            val = self.pictures // 6
            write_faces(place / "made", self.pictures - val, val, SIDE)
            files = sorted(map(str, (place / "made").glob("fairface/*/*.jpg")))
            _decode_all(files)  # the files are in the page cache for both
            busy = busy_cores()
            for number in range(self.rounds):
                rounds.append({**_decoded(files), **_prepared(place)})
                say(f"round {number + 1}: {rounds[-1]}")
                results = {
                    **environment.record(environment.typed("python scripts/lab/measure_prepare.py"), _PACKAGES),
                    "pictures": self.pictures,
                    "busy_cores": busy,
                    "rounds": rounds,
                }
                page = _page(results)
                write_results(page + "\n", results, self.out)  # at once: what follows may be cut off
        print(page)
        return 0


def _decode_all(files: list[str]) -> None:
    def one(file: str) -> None:
        with open(file, "rb") as opened:
            Image.open(io.BytesIO(opened.read())).convert("RGB")

    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(one, files):
            pass


def _decoded(files: list[str]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    _decode_all(files)
    return {"decode_seconds": time.perf_counter() - wall, "decode_cpu": time.process_time() - cpu}


def _prepared(place: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "facefeat_jax.cli", "prepare", "fairface", "--overwrite", "--json"]
    command += ["--from", str(place / "made/fairface"), "--data-dir", str(place / "data")]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ}).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "prepare_seconds": json.loads(printed)["seconds"],
        "command_seconds": time.perf_counter() - wall,
        "command_cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def _page(results: dict[str, Any]) -> str:
    rounds = results["rounds"]

    def cells(name: str, against: str) -> list[str]:
        values = [one[name] for one in rounds]
        ratios = [one[name] / one[against] for one in rounds]
        middle = statistics.median(values)
        return [
            f"{middle:.2f} s ({min(values):.2f} to {max(values):.2f})",
            f"{results['pictures'] / middle:,.0f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        ]

    rows = [
        ["decoding each picture once, all cores", *cells("decode_seconds", "decode_seconds")],
        ["`prepare`, from its start on", *cells("prepare_seconds", "decode_seconds")],
        ["`facefeat prepare`, the whole command", *cells("command_seconds", "decode_seconds")],
        ["CPU time of decoding", *cells("decode_cpu", "decode_cpu")],
        ["CPU time of the whole command", *cells("command_cpu", "decode_cpu")],
    ]
    lines = [
        "# `facefeat prepare` against decoding",
        "",
        *environment.record_lines(results),
        f"- {results['pictures']:,} made pictures, {len(rounds)} rounds in turn; before them, other programs kept "
        f"{results['busy_cores']:.1f} of {cores()} cores busy",
        "",
        *table(["what", "median (lowest to highest)", "pictures/s", "times decoding"], rows, 1),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_and_exit(lambda: run_command_line(Arguments, __doc__))
