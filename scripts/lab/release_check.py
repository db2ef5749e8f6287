"""Runs the README's commands at real size, on one, two and all cores, with and without other work on the same cores.

    python scripts/lab/release_check.py --repeat 20

`audit` and `train fast`, which once aborted on busy machines when they had two CPU devices, run `--repeat` times on all
cores, half of them beside busy loops, one a core; so does `audit` where two devices are asked for. Any other command
runs once in each setting. Any other exit code than 0, or a picture without an
answer, makes the exit code 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from facefeat_jax import avatars
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.files import write_whole
from facefeat_jax.system.main import run_and_exit
from faults import processes

_TWO_DEVICES = "audit, two CPU devices"
_REPEATED = ("train fast", "audit", _TWO_DEVICES)
_OTHERS = ("prepare avatars", "train avatars", "evaluate", "predict")
_SECONDS = 7200  # after which a command is killed, and has failed
_HEADER = ("command", "cores", "busy", "runs", "exit codes", "seconds, median", "worst")
_DRAWN = 64  # pictures; the others that `predict` gets are links to them


@dataclass(frozen=True)
class Options:
    """How much is run, and where the counts go."""

    out: Path = Path("docs/benchmarks/release_check")
    """File of the counts: a .json and a .md of this name."""
    repeat: int = 20
    """How often `audit` and `train fast` run on all cores, half of them beside busy loops."""
    pictures: int = 4096
    """Pictures that `predict` gets."""
    fast_epochs: int | None = None
    """Epochs of `train fast`; the default is the recipe's own."""
    fast_limit: int | None = None
    """Pictures of each split for `train fast`; the default is all, which takes a quarter of an hour on two cores."""
    only_repeated: bool = False
    """All cores alone; what is not repeated runs once, without busy loops."""


def commands(work: Path, options: Options) -> dict[str, list[str]]:
    """Returns the words of each command after `facefeat`, by a short name, in the order in which they are run."""
    data, run = ["--data-dir", f"{work}/data"], f"{work}/runs/avatars"
    fast = ["--run", f"{work}/runs/fast", "--sources", "avatars", "--weights", "random", "--overwrite"]
    fast += [] if options.fast_epochs is None else ["--epochs", f"{options.fast_epochs}"]
    fast += [] if options.fast_limit is None else ["--limit", f"{options.fast_limit}"]
    return {
        "prepare avatars": ["prepare", "avatars", *data, "--overwrite"],
        "train avatars": ["train", "avatars", *data, "--run", run, "--overwrite"],
        "train fast": ["train", "fast", *data, *fast],
        "evaluate": ["evaluate", run],
        "predict": ["predict", run, "-", "--out", f"{work}/answers.jsonl"],
        "audit": ["audit", run],
        _TWO_DEVICES: ["audit", run],
    }


def settings(options: Options) -> Iterator[tuple[int, bool, dict[str, int]]]:
    """Yields how many cores, whether busy loops run beside, and how often commands run there, if not once."""
    every = len(_cores())
    for count in sorted({every} if options.only_repeated else {1, min(2, every), every}):
        for busy in (False, True):
            times = dict.fromkeys(_REPEATED, (options.repeat + busy) // 2 if count == every else 1)
            yield count, busy, times | dict.fromkeys(_OTHERS if options.only_repeated and busy else (), 0)


@contextlib.contextmanager
def busy_loops(pinned: Sequence[str], count: int) -> Iterator[None]:
    """Keeps `count` cores busy; `pinned` is what comes before a command to hold it on its cores."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            loops.append(subprocess.Popen([*pinned, "sh", "-c", "while :; do :; done"]))
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


def check(options: Options, work: Path, facefeat: Sequence[str]) -> dict[str, Any]:
    """Runs everything in an empty folder and returns the counts, which are on disk after every single run.

    `facefeat` are the words that start that command.
    """
    result: dict[str, Any] = {
        **environment.record(environment.typed("python scripts/lab/release_check.py"), devices="CPU"),
        "load": round(os.getloadavg()[0], 1),
        "rows": [],
    }
    names = _pictures(work / "pictures", options.pictures)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for count, busy, times in settings(options):
        pinned = ["taskset", "-c", ",".join(map(str, _cores()[:count]))]
        with busy_loops(pinned, count if busy else 0):
            for name, words in commands(work, options).items():
                setting = ["JAX_NUM_CPU_DEVICES=2"] if name == _TWO_DEVICES else []
                shown = " ".join([*setting, "facefeat", *words]).replace(f"{work}/", "")
                if not times.get(name, 1):
                    continue
                row: dict[str, Any] = {"name": name, "command": shown, "cores": count, "busy": busy, "runs": []}
                result["rows"].append(row)
                for _ in range(times.get(name, 1)):
                    row["runs"].append(_run([*pinned, "env", *setting, *facefeat, *words], name, work, names))
                    write_whole(options.out.with_suffix(".json"), (json.dumps(result, indent=1) + "\n").encode())
                    write_whole(options.out.with_suffix(".md"), report(result).encode())
                print(*_cells(row), *failed(row), sep=" | ", flush=True)
    return result


def failed(row: Mapping[str, Any]) -> list[str]:
    """Returns what went wrong in the runs of a row, one line each."""
    return [run["failure"] for run in row["runs"] if run["failure"]]


def report(result: Mapping[str, Any]) -> str:
    """Returns what was counted as Markdown."""
    rows = result["rows"]
    runs, bad = sum(len(row["runs"]) for row in rows), [line for row in rows for line in failed(row)]
    lines = [
        "# Commands on busy cores",
        "",
        *environment.record_lines(result),
        f"- before it, other work on the machine caused a load average of {result['load']}",
        "",
        f"{runs} runs, {len(bad)} failed. *Busy* means that one endless loop per core runs on the same cores. The "
        "first run that needs a program compiles and caches it.",
        "",
        *([result["note"], ""] if "note" in result else []),  # added by hand
        *markdown.table(_HEADER, map(_cells, rows)),
        "",
        *(f"- {markdown.code(command)}" for command in dict.fromkeys(row["command"] for row in rows)),
    ]
    lines += ["", *(f"- failed: {markdown.escaped(line)}" for line in bad)] if bad else []
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    seconds = [run["seconds"] for run in row["runs"]]
    codes = ", ".join(f"{code} x{times}" for code, times in Counter(run["code"] for run in row["runs"]).items())
    busy, median = "yes" if row["busy"] else "no", f"{statistics.median(seconds):.1f}"
    return row["name"], row["cores"], busy, len(seconds), codes, median, f"{max(seconds):.1f}"


def _run(command: list[str], name: str, work: Path, names: bytes) -> dict[str, Any]:
    answers = work / "answers.jsonl"
    answers.unlink(missing_ok=True)
    ended = processes.run(command, work, timeout=_SECONDS, stdin=names if name == "predict" else b"")
    failure = ""
    if ended.code:
        last = "".join(ended.err.strip().splitlines()[-1:])
        failure = f"{name}: exit code {ended.code}: {last[-300:]}"
    elif name == "predict" and (count := answers.read_bytes().count(b"\n")) != names.count(b"\n"):
        failure = f"predict: {count} answers, and not one for each picture"
    return {"code": ended.code, "seconds": round(ended.seconds, 2), "failure": failure.replace(f"{work}", ".")}


def _pictures(folder: Path, count: int) -> bytes:
    """Makes pictures, most of them links to the first ones, and returns their names, one a line."""
    folder.mkdir()
    paths = [folder / f"{index:06}.png" for index in range(count)]
    for index, path in enumerate(paths[:_DRAWN]):
        avatars.draw(20_000, index).image.save(path)
    for index, path in enumerate(paths[_DRAWN:]):
        path.hardlink_to(paths[index % _DRAWN])
    return b"".join(os.fsencode(path) + b"\n" for path in paths)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def main() -> int:
    """Runs the command line."""
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    with tempfile.TemporaryDirectory() as folder:
        result = check(options, Path(folder).resolve(), processes.facefeat())
    bad = sum(len(failed(row)) for row in result["rows"])
    print(f"{options.out.with_suffix('.md')}: {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    run_and_exit(main)
