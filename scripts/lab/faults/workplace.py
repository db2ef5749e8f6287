"""The training job that campaigns interrupt, and what came of it when nothing did."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

CHILD = Path(__file__).with_name("child.py")
_LIMIT_S = 900.0  # for a process that is left alone; one that takes longer hangs

# 44 pictures: five batches of 8 and one of 4, twice; checkpoints after steps 2, 4, 6, ...; all that is random is on.
_OPTIONS = "--image-size 32 --batch-size 8 --epochs 2 --checkpoint-every 2 --log-every 2 --warmup-steps 6 --packed on"
_OPTIONS += " --feed stream --weights random"
WHOLE_TRUNK = (*_OPTIONS.split(), "--keep-best")
# The same with heads alone: it compiles in seconds, for the sample among the tests.
_ALONE = " --no-flip --trainable none --batch-norm frozen --cache-prefix --steps-per-call 1 --tasks shirt"
HEADS = tuple((_OPTIONS + _ALONE).split())


@dataclass(frozen=True)
class Outcome:
    """What a finished job leaves, as far as it must not depend on interruptions."""

    weights: str  # SHA-256 of the exported safetensors
    lines: tuple[str, ...]  # the lines of `metrics.jsonl`, but for those that hold times
    results: str  # heads and history of `results.json`

    def differs(self, other: Outcome) -> str:
        """Returns what is not the same, or nothing."""
        names = ("weights", "lines", "results")
        return ", ".join(name for name in names if getattr(self, name) != getattr(other, name))


class Place:
    """A folder with a data set, caches and an uninterrupted run.

    Args:
      folder: it is made.
      options: of the training job.
      data: folder of a data set that is there; None to draw one.
    """

    def __init__(self, folder: Path, options: Sequence[str] = WHOLE_TRUNK, data: Path | None = None):
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.options = list(options)
        self.data = data or self.folder / "data"
        self._expected: Outcome | None = None

    @property
    def expected(self) -> Outcome:
        """What an uninterrupted run leaves; the first call makes the data set and that run."""
        if self._expected is None:
            if not self.data.exists():
                self.finish(self.prepare_command(self.data))
            self._expected = self.train_to_end(self.folder / "uninterrupted", self.folder / "cache-uninterrupted")
        return self._expected

    def prepare_command(self, data: Path) -> list[str]:
        """Returns the command that draws the data set."""
        return [sys.executable, str(CHILD), "prepare", "avatars", "--data-dir", str(data)]

    def train_command(self, run: Path, *, data: Path | None = None, more: Sequence[str] = ()) -> list[str]:
        """Returns the command that trains into a folder, or goes on where it has begun, and exports the weights."""
        resume = ["--resume"] if (run / "config.json").exists() else []
        arguments = ["--data-dir", str(data or self.data), *self.options, *resume, *more]
        return [sys.executable, str(CHILD), "train-and-export", str(run), str(_exported(run)), *arguments]

    def start(self, command: Sequence[str], cache: Path | None = None) -> Watched:
        """Starts a command of ours.

        Args:
          command: what.
          cache: folder of decoded pictures; compiled programs are shared by all.
        """
        environment = {
            **os.environ,
            "FACEFEAT_CACHE": str(cache or self.folder / "cache"),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([str(CHILD.parents[3]), os.environ.get("PYTHONPATH", "")]),
        }
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(self.folder / "xla"))
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        return Watched(command, environment)

    def finish(self, command: Sequence[str], cache: Path | None = None) -> Watched:
        """Runs a command to its end.

        Raises:
          RuntimeError: it failed.
        """
        process = self.start(command, cache)
        code = process.wait()
        if code:
            raise RuntimeError(f"exit code {code}: {process.errors[-2000:]}")
        return process

    def train_to_end(self, run: Path, cache: Path, *, data: Path | None = None) -> Outcome:
        """Runs the job to its end, from wherever it is, and returns what came of it; its folder is deleted.

        Raises:
          RuntimeError: it failed, or left no result.
        """
        self.finish(self.train_command(run, data=data), cache)
        outcome = read_outcome(run)
        for folder in (run, cache):
            shutil.rmtree(folder, ignore_errors=True)
        _exported(run).unlink(missing_ok=True)
        return outcome


def _exported(run: Path) -> Path:
    return run.with_name(f"{run.name}.safetensors")


def read_outcome(run: Path) -> Outcome:
    """Returns what a finished job has left in its folder and beside it."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return Outcome(
        hashlib.sha256(_exported(run).read_bytes()).hexdigest(),
        tuple(line for line in lines if json.loads(line)["event"] != "pass"),
        json.dumps({name: results[name] for name in ("heads", "history", "steps")}),
    )


class Watched:
    """A process whose `AT` lines can be waited for.

    Attributes:
      errors: what it has written to standard error.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        self.errors = ""
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._places: Queue[str | None] = Queue()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_places, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_places(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("AT "):
                self._places.put(line[3:].strip())
        self._places.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.errors += line

    def reach(self, place: str, times: int = 1) -> bool:
        """Waits until it is at a place for the so-manieth time; returns False where it ends before."""
        deadline = time.monotonic() + _LIMIT_S
        while times:
            try:
                found = self._places.get(timeout=max(deadline - time.monotonic(), 0.01))
            except Empty:
                self.signal(9)
                raise RuntimeError(f"it does not come to {place}") from None
            if found is None:
                return False
            times -= found == place
        return True

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Waits for its end and returns its exit code, negative after a signal.

        Raises:
          RuntimeError: it hangs; it is killed.
        """
        try:
            code = self._process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RuntimeError("it hangs") from None
        for reader, pipe in zip(self._readers, (self._process.stdout, self._process.stderr), strict=True):
            reader.join()  # it ends with the process, and what that has started
            assert pipe is not None
            pipe.close()
        return code
