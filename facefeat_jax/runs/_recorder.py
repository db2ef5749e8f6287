"""The folder of a run while it is trained: who may write into it, what it starts from, and what is written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from facefeat_jax.config import TrainConfig
from facefeat_jax.runs import run_config, run_folder
from facefeat_jax.runs.checkpoints import Checkpoints, Trees, best_step
from facefeat_jax.runs.data_record import DataRecord
from facefeat_jax.runs.logs import Logs, NoLogs
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import checked_json, environment
from facefeat_jax.system.distributed import is_first
from facefeat_jax.system.progress import say


@contextlib.contextmanager
def held(config: TrainConfig) -> Iterator[None]:
    """Holds the run folder for a training and prepares it: no other training may use it until the block ends.

    Of several processes the first one does this.

    Args:
      config: what is done, every choice made.

    Raises:
      UserError: another process trains there, or the folder can't be used or overwritten.
    """
    if not is_first():
        yield
        return
    with run_folder.owned(config.run):
        run_config.check_folder(config)  # again: another process may have held it since
        if not config.resume:
            run_folder.clear(config.run)  # of an earlier run (--overwrite), or of a start that failed
            # First: a folder that holds something but no config is not taken for a run.
            run_folder.write_config(config.run, config)
        yield


class RunRecorder:
    """Writes into a run folder that is `held`; use it as a context manager, and call `begin` first.

    Of several processes the first one writes; all of them take part in checkpoints.

    Attributes:
      start: the step that the training starts or continues from.
      history: an entry for each validation of each task so far: `step`, `epoch`, `task` and its figures.
      logs: the logs, open from `begin` on.
      checkpoints: the checkpoints.

    Args:
      config: what is done, every choice made.
      spec: what the model is.
      record: the identity of the data.
      num_steps: how many steps the whole run has.
      began: `time.perf_counter()` when the training was called.
    """

    start: int
    logs: Logs | NoLogs
    checkpoints: Checkpoints

    def __init__(self, config: TrainConfig, spec: ModelSpec, record: DataRecord, num_steps: int, began: float):
        self._config, self._spec, self._record, self._num_steps, self._began = config, spec, record, num_steps, began
        self._writes = is_first()
        self._seconds_before = 0.0
        self._open = contextlib.ExitStack()
        self.history: list[dict[str, Any]] = []

    def __enter__(self) -> RunRecorder:
        self.checkpoints = Checkpoints(self._config.run, keep=self._config.checkpoints.keep_checkpoints)
        self._open.callback(self.checkpoints.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def begin(self, like: Trees) -> dict[str, Any] | None:
        """Finds the checkpoint to continue from and opens the logs there.

        Args:
          like: trees of the structure, shapes, dtypes and placement of the checkpoint's.

        Returns:
          The checkpoint's trees; None where the run starts from the beginning.

        Raises:
          UserError: no checkpoint can be read, or the logs can't be written.
        """
        self.start, trees = self._restored(like) if self._config.resume else (0, None)
        folder = self._config.run
        if not self._writes:
            self.logs = NoLogs()
            return trees
        if not self.start:
            self._record.write(folder)
        validated = any(entry["step"] == self.start for entry in self.history)
        metrics, tensorboard = folder / run_folder.METRICS, folder / run_folder.TENSORBOARD
        self.logs = Logs(metrics, tensorboard, start=self.start, validated=validated)
        self._open.callback(self.logs.close)
        return trees

    def _restored(self, like: Trees) -> tuple[int, dict[str, Any] | None]:
        folder = self._config.run
        restored = self.checkpoints.newest(lambda step: (step, *self.checkpoints.restore(step, like)))
        if restored is None:
            say(f"{folder} has no checkpoint yet: starting from the beginning")
            return 0, None
        step, trees, about = restored
        if step in self.checkpoints.unchecked:
            run_folder.warn_unchecked(folder)
        self.history, self._seconds_before = about["history"], about["seconds"]
        say(f"resuming from step {step} of {self._num_steps}")
        before, now = about.get("devices"), environment.device_names()
        if before not in (None, now):
            say(f"the run was trained on {before} until now, and continues on {now}: its last digits may differ")
        return step, trees

    def add_validation(self, step: int, epoch: int, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds the figures of each task to the history and to the logs.

        Args:
          step: steps taken.
          epoch: from 1.
          results: the figures of each task, as JSON.

        Raises:
          UserError: the logs can't be written.
        """
        self.history += [{"step": step, "epoch": epoch, "task": task, **results[task]} for task in results]
        self.logs.write("validation", step, epoch, tasks=dict(results))

    def seconds(self) -> float:
        """Returns how long the run has taken so far, in all the processes that trained it one after the other."""
        return self._seconds_before + time.perf_counter() - self._began

    def save(self, step: int, trees: Trees) -> None:
        """Starts writing a checkpoint; all figures up to it have been logged.

        Args:
          step: its number.
          trees: what it holds; see `Checkpoints.save`.

        Raises:
          UserError: it can't be written, or the arrays are not finite.
        """
        about = {
            "spec": self._spec.to_json(),
            "history": self.history,
            "seconds": self.seconds(),
            "devices": environment.device_names(),
        }
        keep_best = self._config.checkpoints.keep_best
        best = best_step(self.history, len(self._config.data.tasks)) if keep_best else None
        self.logs.sync()  # first: a run that resumes from the checkpoint has no other source of these lines
        self.checkpoints.save(step, trees, about, best=best)

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json`, in the process that writes.

        Raises:
          UserError: it can't be written.
        """
        if self._writes:
            run_folder.write_json(self._config.run / run_folder.RESULTS, checked_json.with_digest(results))
