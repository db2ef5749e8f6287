"""The run's logs: `metrics.jsonl`, one line per step, and the same for TensorBoard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class Logs:
    """Writes what happens in a run to `metrics.jsonl` and to `tensorboard/` in the run folder.

    Lines have a `step` (steps taken when it happened), an `event` (`train`, `validation` or `pass`) and the figures.

    Args:
      metrics: path of the JSON lines file.
      tensorboard: folder of the TensorBoard files.
      start: the step that the run starts or goes on from. What an interrupted run logged after it is taken out, since
        those steps will be taken again.
    """

    def __init__(self, metrics: Path, tensorboard: Path, *, start: int = 0):
        _cut_after(metrics, start)
        self._file = open(metrics, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed in close()
        self._writer = SummaryWriter(str(tensorboard), purge_step=start + 1, flush_secs=10)

    def write(self, event: str, step: int, values: dict[str, Any]) -> None:
        """Appends one line; numbers also go to TensorBoard under `event/name`."""
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        head = f"/{values['task']}" if "task" in values else ""
        for name, value in values.items():
            if isinstance(value, int | float) and name != "epoch":
                self._writer.add_scalar(f"{event}{head}/{name}", value, step)

    def close(self) -> None:
        """Writes everything out."""
        self._file.close()
        self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`; a last line that was cut short is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _cut_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    temporary = path.with_suffix(".jsonl.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)
