"""The coordinator's half: sides, and the processes that work for them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import facefeat_jax


class SideError(Exception):
    """A side can't do what it was asked for, or died of it; the message is one line."""


@dataclass(frozen=True)
class Side:
    """Who does the work."""

    name: str  # as in the results
    title: str  # as in the tables
    module: str  # what `python -m` runs; it calls `measure.serve`
    packages: tuple[str, ...]  # whose versions its figures depend on
    settings: Mapping[str, Any] = field(default_factory=dict)  # added to those of every operation
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of its processes
    path: Sequence[Path] = ()  # folders where its modules lie, beside the package's and the laboratory's
    absent: str = ""  # why it can't be had on this machine, or empty


class Worker:
    """A process of a side; use it as a context.

    Args:
      side: whose.
      environment: further variables; an empty value takes a variable away.
      log: file to which its standard error is appended.
    """

    def __init__(self, side: Side, environment: Mapping[str, str], log: Path):
        if side.absent:
            raise SideError(side.absent)
        self._side = side
        self._log = log
        variables = {**os.environ, **side.environment, **environment}
        variables["PYTHONPATH"] = python_path(side.path, variables.get("PYTHONPATH"))
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", side.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={name: value for name, value in variables.items() if value != ""},
                start_new_session=True,  # its children (loaders, compilers) end with it
            )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def open(self, operation: str, settings: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        """Sets a measurement up; returns what is known before its first round."""
        merged = {**settings, **self._side.settings}
        return self._ask({"do": "open", "operation": operation, "settings": merged}, timeout)

    def round(self, *, timeout: float) -> dict[str, Any]:
        """Does a round of the open measurement."""
        return self._ask({"do": "round"}, timeout)

    def close(self, *, timeout: float) -> dict[str, Any]:
        """Ends the measurement; returns what is known after it."""
        return self._ask({"do": "close"}, timeout)

    def _ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self.end(patience=0)
            raise SideError(f"no answer within {timeout:.0f} s") from None
        except (OSError, ValueError):  # it has gone; its standard input is closed on one end or on ours
            line = ""
        if not line:
            self.end()
            raise SideError(f"its process ended with exit code {self._process.returncode}; see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer["result"]

    def end(self, patience: float = 5) -> None:
        """Ends the process and whatever it started: it may leave by itself, then it is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may have gone, with a request unread
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience)
        _kill_session(self._process)
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, *, timeout: float
) -> tuple[str, float]:
    """Runs `python ARGUMENTS` to its end, its standard error going to `log`.

    Returns:
      What it printed, and the seconds from its start to its end.

    Raises:
      SideError: it took too long or did not exit with 0; the message is the last line that it said.
    """
    variables = {**os.environ, **environment}
    variables["PYTHONPATH"] = python_path((), variables.get("PYTHONPATH"))
    started = time.perf_counter()
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={name: value for name, value in variables.items() if value != ""},
            start_new_session=True,
        )
    try:
        printed, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise SideError(f"not done within {timeout:.0f} s") from None
    finally:
        _kill_session(process)
        process.wait()
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise SideError(lines[-1])
    return printed, time.perf_counter() - started


def _kill_session(process: subprocess.Popen) -> None:
    """Kills what is left of a process that leads a session of its own, its children included."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def python_path(folders: Sequence[Path], inherited: str | None) -> str:
    """Returns a `PYTHONPATH` under which the package, the laboratory and `folders` are found."""
    own = [str(Path(file).resolve().parents[1]) for file in (facefeat_jax.__file__, __file__)]
    return os.pathsep.join([*own, *map(str, folders), *filter(None, [inherited])])
