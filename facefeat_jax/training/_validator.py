"""Validation while training: the newest weights over the validation pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facefeat_jax.data.feeds import Feed
from facefeat_jax.evaluation.metrics import HeadResult
from facefeat_jax.training._setup import Session
from facefeat_jax.training.steps import TrainState, final_weights


class Validator:
    """Runs the weights that a training would end with now over the validation pictures.

    Attributes:
      seconds: what `results` took, added up.

    Args:
      session: what is trained.
      feed: the validation pictures.
    """

    def __init__(self, session: Session, feed: Feed):
        self._session, self._feed = session, feed
        self._newest: dict[str, np.ndarray] | None = None  # of the newest weights, on all validation pictures
        self.seconds = 0.0

    def results(
        self, state: TrainState, tasks: Sequence[str], title: str, *, on_batch: Callable[[], object] = lambda: None
    ) -> dict[str, HeadResult]:
        """Returns the figures of heads on the pictures that have their label.

        Args:
          state: the state.
          tasks: the heads.
          title: of the progress bar.
          on_batch: called after each batch; it may raise, to give up.
        """
        started = time.perf_counter()
        pictures = self._session.evaluator.labelled(tasks)
        logits = self._logits(state, pictures, title, on_batch)
        # The last time, all heads are looked at: the report is made of the same answers.
        self._newest = logits if len(pictures) == len(self._session.data.validation) else None
        self.seconds += time.perf_counter() - started
        return self._session.evaluator.figures(logits, pictures, tasks)

    def final_results(self, state: TrainState, history: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Returns the figures of every head of the final weights, as JSON.

        They are those of the last validation where it saw the final weights. With one task after the other, all heads
        but the last were validated before the trunk moved on.

        Args:
          state: the state after the last step.
          history: all validations; see `RunRecorder.history`.
        """
        last = {entry["task"]: entry for entry in history}
        if all(entry["step"] == len(self._session.data.stream) for entry in last.values()):
            names = HeadResult.__dataclass_fields__
            found = {task: {name: entry[name] for name in names} for task, entry in last.items()}
        else:
            results = self.results(state, self._session.config.data.tasks, "final weights")
            found = {task: result.to_json() for task, result in results.items()}
        return {task: found[task] for task in self._session.config.data.tasks}

    def final_logits(self, state: TrainState) -> dict[str, np.ndarray]:
        """Returns each head's logits `[n, outputs]` on all validation pictures, with the state after the last step."""
        if self._newest is not None:
            return self._newest
        # Resumed after the last validation, or there are pictures without any label.
        return self._logits(state, np.arange(len(self._session.data.validation)), "report:")

    def _logits(
        self, state: TrainState, pictures: np.ndarray, title: str, on_batch: Callable[[], object] = lambda: None
    ) -> dict[str, np.ndarray]:
        evaluator = self._session.evaluator
        evaluator.use(self._session.programs.get("predict"))
        return evaluator.logits(self._feed, *final_weights(state), pictures, title=title, on_batch=on_batch)
