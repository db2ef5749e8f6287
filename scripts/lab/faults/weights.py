"""Weights from a link: spoiled, lying and hostile files, read by a process that is watched while it reads.

    python -m faults.weights WORK FIRST LAST SEED     # what the campaign starts: one line of JSON per file

An audit hook tells of everything that could be harm: a program started, code compiled or run, a module imported, a file
written, a connection made.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.system.text import format_size
from faults import cases, models
from faults.mutate import MUTATIONS, mutated
from faults.processes import ROOT
from faults.tally import Tally
from faults.weight_files import LYING, hostile

DEFAULT_COUNT = 8000
MODELS = 60  # files of 45 MB
MOST_SECONDS = 10.0  # for a file of a few kilobytes
MOST_GROWTH = 300 * 2**20  # of memory, while one is read

_FIXTURES = ROOT / "tests" / "weights_conversion" / "fixtures"
_ALLOWED = ("marshal.loads",)  # of an import, which is told of itself


def run(work: Path, *, count: int, seed: int) -> Tally:
    """Reads `count` files; each has to be read or refused in one line, with nothing run, nothing written, in time."""
    tally = Tally(
        "weights",
        "Weight files that are damaged (all of torch's formats and safetensors), inconsistent (safetensors headers, "
        "zip members, shapes) or hostile (pickles that would run code). Each must be read, or refused in one line, in "
        "time and in bounded memory. Nothing may be run, imported or written",
    )
    cases.follow(__name__, tally, work, count, seed)
    cases.follow(models.__name__, tally, work, min(MODELS, count), seed)
    return tally


class _Watch:
    """Notes what a piece of work does that reading never does."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            _, mode, flags = (*arguments, None, None, None)[:3]
            writes = any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & 0o3)
            if not writes:
                return
        elif not event.startswith(
            ("os.", "subprocess.", "socket.", "import", "exec", "compile", "ctypes.", "shutil.", "pickle.", "marshal.")
        ) or event in ("os.listdir", "os.scandir", *_ALLOWED):
            return
        self.seen.append(f"{event}{arguments!r}"[:200])


def main(work: Path, first: int, last: int, seed: int) -> None:
    """Reads the files from `first` to `last` and prints a line of JSON for each."""
    from weights_conversion import WeightsFileError, check_finite, read, read_metadata

    folder = work / "files"
    folder.mkdir(parents=True, exist_ok=True)
    sources = _sources(folder)
    makers = {**LYING, **hostile(work / "ran")}
    kinds = [*MUTATIONS, *makers]
    watch = _Watch()
    good = folder / "good.pth"
    for path in (good, folder / "good.safetensors"):  # whatever is imported on first use
        check_finite(read(path), path)
        read_metadata(path)

    def attempt(path: Path, must_fail: bool) -> str:
        started, before = time.monotonic(), _peak()
        watch.seen.clear()
        watch.on = True
        said, refused = "", False
        try:
            for reader in (read, read_metadata):
                try:
                    reader(path)
                except WeightsFileError as error:
                    refused, said = refused or reader is read, str(error)
                    if "\n" in said or path.name not in said:
                        return f"the reason is {said!r}"
        finally:
            watch.on = False
        seconds, growth = time.monotonic() - started, _peak() - before
        if watch.seen:
            return f"it made this happen: {watch.seen[:3]}"
        if must_fail and not refused:
            return "was read"
        if seconds > MOST_SECONDS or growth > MOST_GROWTH:
            return f"took {seconds:.1f} s and {format_size(growth)}"
        return "it wrote" if (work / "ran").exists() else ""

    def read_one(number: int) -> tuple[str, Callable[[], str]]:
        random = np.random.RandomState([seed, number])
        kind = kinds[number % len(kinds)]
        path = folder / f"spoiled{('.pth', '.safetensors')[number % 2]}"
        if kind in MUTATIONS:
            content = mutated(sources[random.randint(len(sources))], kind, random, sources)
        else:
            content = makers[kind](random)
        path.write_bytes(content)
        return kind, lambda: attempt(path, must_fail=kind not in MUTATIONS)

    cases.each(first, last, read_one)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tensors(random: np.random.RandomState) -> dict[str, np.ndarray]:
    return {
        "conv1.weight": random.rand(4, 3, 3, 3).astype(np.float32),
        "bn1.running_mean": random.rand(4),
        "bn1.num_batches_tracked": np.array(7, np.int64),
        "flags": np.array([True, False]),
    }


def _sources(folder: Path) -> list[bytes]:
    from weights_conversion import write

    for suffix in ("pth", "safetensors"):
        write(folder / f"good.{suffix}", _tensors(np.random.RandomState(0)), metadata={"facefeat_classes": "{}"})
    ours = [(folder / f"good.{suffix}").read_bytes() for suffix in ("pth", "safetensors")]
    names = ("zip.pth", "stream.pth", "tar.pth", "checkpoint.pth", "module.pth", "plain.safetensors")
    return ours + [(_FIXTURES / name).read_bytes() for name in names]


if __name__ == "__main__":
    cases.call(main)
