"""Running a command as a user would, with its time and memory measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # its exit code; negative after a signal, as in `subprocess`
    seconds: float  # how long it took
    peak_bytes: int  # the most memory that it held, with the processes that it started
    out: str  # its standard output
    err: str  # its standard error
    in_time: bool  # false where it was killed because it took too long


def environment(work: Path) -> dict[str, str]:
    """Returns the environment of the commands of a campaign: this checkout's code, a cache of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts" / "lab"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "FACEFEAT_CACHE": str(work / "cache"), "JAX_PLATFORMS": "cpu"}


def facefeat(*words: str | Path) -> list[str]:
    """Returns the command line of the `facefeat` command."""
    return [sys.executable, "-m", "facefeat_jax.cli", *map(str, words)]


def run(command: Sequence[str], work: Path, *, timeout: float, stdin: bytes = b"") -> Ended:
    """Runs a command to its end, or for `timeout` seconds at most."""
    work.mkdir(parents=True, exist_ok=True)
    paths = [work / f"last.{name}" for name in ("stdin", "stdout", "stderr")]
    paths[0].write_bytes(stdin)
    started = time.monotonic()
    with paths[0].open("rb") as given, paths[1].open("wb") as out, paths[2].open("wb") as err:
        child = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, env=environment(work))
        overdue = threading.Timer(timeout, child.send_signal, [signal.SIGKILL])
        overdue.start()
        with watching(child.pid) as seen:
            _, status, used = os.wait4(child.pid, 0)
        overdue.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    said = [path.read_bytes().decode("utf-8", "surrogateescape") for path in paths[1:]]
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(used.ru_maxrss * unit, *seen)  # the first misses no moment, the others no process
    return Ended(child.returncode, seconds, peak, said[0], said[1], seconds < timeout)


@contextmanager
def watching(pid: int) -> Iterator[list[int]]:
    """Gives a list of the bytes that a process and those that it started hold, added to all the time."""
    seen, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            try:
                parent = psutil.Process(pid)
                seen.append(sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True))))
            except psutil.Error:  # one of them has just ended
                continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


_MAKE_RUN = """
import dataclasses, sys
from pathlib import Path
from flax import nnx
from facefeat_jax import create_model
from facefeat_jax.config import load_recipe
from facefeat_jax.runs.run_folder import create_from_weights
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS

run, size = Path(sys.argv[1]), int(sys.argv[2])
spec = ModelSpec("resnet18", {task.name: task.classes for task in TASKS.values()}, size, "upright", "random")
model = create_model("resnet18", tasks=list(TASKS), weights="random", rngs=nnx.Rngs(0))
create_from_weights(run, spec, model, load_recipe("avatars").replace(run=run, image_size=size))
"""


def random_run(work: Path, *, size: int = 32) -> Path:
    """Makes a run of random weights: what it answers is no matter here."""
    run_folder = work / "run"
    ended = run([sys.executable, "-c", _MAKE_RUN, str(run_folder), str(size)], work, timeout=600)
    if ended.code:
        raise RuntimeError(f"no run could be made: {ended.err[-2000:]}")
    return run_folder
