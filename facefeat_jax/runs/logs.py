"""The run's logs: `metrics.jsonl`, one line per step, and the same for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from facefeat_jax.system import checked_json, kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import write_whole
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import one_line

_FLUSH_S = 10.0  # between flushes of the TensorBoard files
_MEMBERS = {"event": str, "step": int, "epoch": int}


class Logs:
    """Writes what happens in a run to `metrics.jsonl` and to `tensorboard/` in the run folder.

    A line has `event`, `step` (steps taken when it happened), `epoch` (from 1) and, by event:

    - `train`, one line a step: `learning_rate`, and `tasks` with `loss` and `accuracy` of each task in the step;
    - `validation`: `tasks` with `accuracy`, `loss`, `loss_of_batches` (as text where they are not finite) and `n`;
    - `pass`: `seconds`, `images_per_s` (waiting for data and compiling included) and the names of its `tasks`;
    - `nonfinite`, in place of `train` where a loss or a gradient was not finite: the names of the `tasks`, the `losses`
      as text, and the `pictures` of the batch.

    Every step has one `train` or `nonfinite` line, also after interruptions.

    Args:
      metrics: path of the JSON lines file.
      tensorboard: folder of the TensorBoard files.
      start: the step that the run starts or resumes from. What an interrupted run logged after it is taken out, since
        those steps will be taken again.
      validated: whether the history that the run resumes with has the validation at that step; otherwise it will be
        repeated.
    """

    def __init__(self, metrics: Path, tensorboard: Path, *, start: int = 0, validated: bool = True):
        self._folder = metrics.parent
        with self._writing():
            _cut_after(metrics, start, validated)
            self._file = open(metrics, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed in close()
            tensorboard.mkdir(parents=True, exist_ok=True)
            # Without tensorboardX's SummaryWriter: its thread dies of a full disk and leaves the training waiting.
            # The name tells runs apart that go on within the same second.
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{start}"
            self._events = RecordWriter(str(tensorboard / name))
            self._write_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
            # TensorBoard drops what an interrupted run logged after this step.
            begun = SessionLog(status=SessionLog.START)
            self._write_event(Event(wall_time=time.time(), step=start + 1, session_log=begun))
            self._events.flush()
        self._flushed = time.monotonic()

    def write(self, event: str, step: int, epoch: int, **values: Any) -> None:
        """Appends one line; its numbers also go to TensorBoard, as `event/name` and `event/task/name`.

        Raises:
          UserError: it can't be written.
        """
        scalars = {name: value for name, value in values.items() if isinstance(value, float)}
        if isinstance(values.get("tasks"), dict):
            for task, figures in values["tasks"].items():
                scalars |= {f"{task}/{name}": float(value) for name, value in figures.items()}
        # One event for all of them: an event each costs the training loop more than a small step does.
        values_of = [
            Summary.Value(tag=one_line(f"{event}/{name}"), simple_value=value) for name, value in scalars.items()
        ]
        with self._writing():
            self._file.write(json.dumps({"event": event, "step": step, "epoch": epoch, **values}) + "\n")
            self._write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values_of)))
            if time.monotonic() - self._flushed > _FLUSH_S:
                self._events.flush()
                self._flushed = time.monotonic()

    def _write_event(self, event: Event) -> None:
        self._events.write(event.SerializeToString())

    def sync(self) -> None:
        """Forces all lines to disk: those up to a checkpoint have to be there when it is.

        Raises:
          UserError: they can't be written.
        """
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        """Closes the files. What can't be written any more is lost: `sync` says so, this does not."""
        for file in (self._file, self._events):
            with contextlib.suppress(OSError):
                file.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"the logs in {self._folder} can't be written ({error.strerror or error}); "
                "make room, then continue with --resume"
            ) from error


class NoLogs:
    """In place of `Logs` in the processes of a run that leave writing to another."""

    def write(self, event: str, step: int, epoch: int, **values: Any) -> None:
        """Writes nothing."""

    def sync(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`. A damaged line is left out, with a message unless it is the last.

    Raises:
      UserError: none of its lines can be read.
    """
    lines, damaged = [], 0
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            line = checked_json.parse(text)
        except ValueError:
            line = None
        if _is_line(line):
            lines.append(line)
        else:
            damaged += text.endswith(b"\n")
    if damaged and not lines:
        raise UserError(f"{path} can't be read: it has no valid line of a training log; restore it or train again")
    if damaged:
        say(f"{path}: {damaged:,} of its lines can't be read and are left out")
    return lines


def _is_line(line: Any) -> bool:
    """Returns whether a line has what lines of every event have."""
    if not isinstance(line, dict) or any(kinds.fault(line.get(name), kind) for name, kind in _MEMBERS.items()):
        return False
    tasks = line.get("tasks")
    if isinstance(tasks, dict):
        return all(isinstance(figures, dict) for figures in tasks.values())
    return not kinds.fault(tasks, tuple[str, ...])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl` with one row for each task of a line, its figures beside `task`."""
    rows = []
    for line in read_lines(path):
        tasks = line.pop("tasks")
        if isinstance(tasks, dict):
            rows += [{**line, "task": task, **figures} for task, figures in tasks.items()]
        else:
            rows.append({**line, "task": "+".join(tasks)})
    return rows


def _cut_after(path: Path, step: int, validated: bool) -> None:
    if not path.exists():
        return
    kept = [line for line in read_lines(path) if line["step"] <= step]
    if not validated:
        kept = [line for line in kept if line["step"] < step or line["event"] != "validation"]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
