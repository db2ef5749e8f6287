"""The figures of training steps: read when they are there, logged, and looked at for numbers that are not finite."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import jax
import numpy as np

from facefeat_jax.data.index_stream import Call, Pass
from facefeat_jax.runs import run_folder
from facefeat_jax.runs._recorder import RunRecorder
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say
from facefeat_jax.training._setup import Session

# With `--on-nonfinite skip`: after so many skipped steps in a row there is nothing to hope for.
_MOST_SKIPPED = 20
# How many pictures of a batch a message names; the log has all of them.
_NAMED = 8


class StepFigures:
    """Takes the metrics of each call while they are still being computed, and logs them once they are there.

    Args:
      session: what is trained.
      run: where the figures are logged.
    """

    def __init__(self, session: Session, run: RunRecorder):
        self._session, self._run = session, run
        self._pending: deque[tuple[Call, Pass, Any]] = deque()
        self._skipped = 0  # steps in a row

    @property
    def num_pending(self) -> int:
        """Number of steps whose figures are not logged yet."""
        return sum(call.num_steps for call, *_ in self._pending)

    def add(self, call: Call, one: Pass, metrics: Any) -> None:
        """Takes the metrics of a call, on the device, and starts their way to the host without waiting for them.

        Args:
          call: the steps.
          one: the pass they belong to.
          metrics: as the step returns them, `[steps]` each.
        """
        with jax.transfer_guard_device_to_host("allow"):  # the guard counts this call as an implicit transfer
            jax.tree.map(lambda value: value.copy_to_host_async(), metrics)
        self._pending.append((call, one, metrics))

    def flush(self, keep: int = 0) -> str:
        """Logs the figures of all calls but the newest `keep`; returns the newest as text, labelled.

        Raises:
          UserError: a loss or a gradient is not finite, and the run is to stop then.
        """
        self._run.checkpoints.check()
        text = ""
        while len(self._pending) > keep:
            call, one, metrics = self._pending.popleft()
            host = jax.device_get(metrics)
            for number, step in enumerate(range(call.first_step + 1, call.end_step + 1)):
                metrics_of_step = {t: {name: v[number] for name, v in m.items()} for t, m in host.items()}
                if not all(np.isfinite(m["loss"]) and m.get("finite", True) for m in metrics_of_step.values()):
                    self._not_finite(metrics_of_step, step, one)
                    continue
                self._skipped = 0
                tasks = _figures(metrics_of_step)
                rate = float(self._session.learning_rates[step - 1])
                self._run.logs.write("train", step, one.epoch + 1, learning_rate=rate, tasks=tasks)
                text = "loss (accuracy): " + "  ".join(
                    f"{task} {figures['loss']:.3f} ({figures['accuracy']:.0%})" for task, figures in tasks.items()
                )
        return text

    def _not_finite(self, metrics: dict[str, dict[str, Any]], step: int, one: Pass) -> None:
        """Logs a step whose loss or gradients are not finite, and says so; raises UserError where that is to stop."""
        data, checkpoints = self._session.data, self._run.checkpoints
        batch = data.stream[step - 1]
        pictures = [data.training.name(int(index)) for index in batch.indices[batch.mask]]
        losses = {task: str(float(metric["loss"])) for task, metric in metrics.items() if int(metric["count"])}
        self._run.logs.write("nonfinite", step, one.epoch + 1, tasks=list(metrics), losses=losses, pictures=pictures)
        bad = {task: loss for task, loss in losses.items() if not math.isfinite(float(loss))}
        what = " and ".join(f"the loss of {task} is {loss}" for task, loss in bad.items()) or "gradients are not finite"
        more = f" and {len(pictures) - _NAMED} more (in {run_folder.METRICS})" if len(pictures) > _NAMED else ""
        where = f"at step {step} of {len(data.stream)}, with the pictures {', '.join(pictures[:_NAMED])}{more}"
        self._skipped += 1
        skips = self._session.config.optimizer.on_nonfinite == "skip"
        if skips and self._skipped < _MOST_SKIPPED:
            say(f"{what} {where}: the step is skipped")
            return
        good = checkpoints.newest_step()
        last = "there is no checkpoint yet" if good is None else f"the last good checkpoint is that of step {good}"
        if skips:
            raise UserError(
                f"{what} {where}; {self._skipped} steps in a row were skipped, which did not help; {last}, in "
                f"{checkpoints.folder}. Try a lower --learning-rate or look at the data"
            )
        raise UserError(
            f"{what} {where}; {last}, in {checkpoints.folder}. Look at the pictures, continue with --resume "
            "--on-nonfinite skip, or try a lower --learning-rate"
        )


def _figures(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns what is logged of a step: of each task that had labels in it."""
    return {
        task: {"loss": float(metric["loss"]), "accuracy": int(metric["correct"]) / int(metric["count"])}
        for task, metric in metrics.items()
        if int(metric["count"])
    }
