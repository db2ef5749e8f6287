"""The run's logs: `metrics.jsonl`, one line per step, and the same for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from facefeat_jax.whole_file import write_whole


class Logs:
    """Writes what happens in a run to `metrics.jsonl` and to `tensorboard/` in the run folder.

    A line has `event`, `step` (steps taken when it happened), `epoch` (from 1) and, by event:

    - `train`, one line a step: `learning_rate`, and `tasks` with `loss` and `accuracy` of each task in the step;
    - `validation`: `tasks` with `accuracy`, `loss`, `loss_of_batches` and `n`;
    - `pass`: `seconds`, `images_per_s` (waiting for data and compiling included) and the names of its `tasks`.

    Args:
      metrics: path of the JSON lines file.
      tensorboard: folder of the TensorBoard files.
      start: the step that the run starts or goes on from. What an interrupted run logged after it is taken out, since
        those steps will be taken again.
      validated: whether the validation at that step is among what the run goes on from; else it will be done again.
    """

    def __init__(self, metrics: Path, tensorboard: Path, *, start: int = 0, validated: bool = True):
        _cut_after(metrics, start, validated)
        self._file = open(metrics, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed in close()
        self._writer = SummaryWriter(str(tensorboard), purge_step=start + 1, flush_secs=10)

    def write(self, event: str, step: int, epoch: int, **values: Any) -> None:
        """Appends one line; its numbers also go to TensorBoard, as `event/name` and `event/task/name`."""
        self._file.write(json.dumps({"event": event, "step": step, "epoch": epoch, **values}) + "\n")
        scalars = {name: value for name, value in values.items() if isinstance(value, float)}
        if isinstance(values.get("tasks"), dict):
            for task, figures in values["tasks"].items():
                scalars |= {f"{task}/{name}": value for name, value in figures.items()}
        # One event for all of them: an event each costs the training loop more than a small step does.
        values_of = [Summary.Value(tag=f"{event}/{name}", simple_value=value) for name, value in scalars.items()]
        self._writer.file_writer.add_summary(Summary(value=values_of), step)

    def close(self) -> None:
        """Writes everything out."""
        self._file.close()
        self._writer.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`; a last line that was cut short is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


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
