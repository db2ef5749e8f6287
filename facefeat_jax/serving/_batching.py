"""One model for many threads: what they ask at the same time is computed as one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from facefeat_jax.prediction._inputs import Reader
from facefeat_jax.prediction._pictures import PicturePredictor
from facefeat_jax.prediction.answers import Prediction

_PATIENCE_S = 0.003  # how long a batch waits for pictures that are being decoded
_ENDED = "the model's thread has ended"

Answers = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclass(eq=False)
class _Job:
    """Pictures of one thread, and where their answers go."""

    pixels: list[np.ndarray]
    answers: Future[Answers] = field(default_factory=Future)


class BatchedPredictor(PicturePredictor):
    """A model whose pictures are decoded by the threads that ask, and computed together by one of its own.

    Args:
      model: what computes; this thread is the only one that uses it.
      read: gives the content of a picture by its name.
      expected: returns how many pictures are on their way, those in a batch included.
      done: is called after each batch with its number of pictures and its seconds.
    """

    def __init__(
        self,
        model: PicturePredictor,
        *,
        read: Reader,
        expected: Callable[[], int],
        done: Callable[[int, float], None],
    ):
        super().__init__(
            model.spec, model._calibration, batch_size=model._batch_size, likeness=model.likeness, read=read
        )
        self._model = model
        self._expected = expected
        self._done = done
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._worker = threading.Thread(target=self._work, name="model", daemon=True)
        self._worker.start()

    @property
    def is_alive(self) -> bool:
        """Whether batches are computed."""
        return self._worker.is_alive()

    def fingerprint(self) -> str:
        """Returns that of the model."""
        return self._model.fingerprint()

    def answer(self, source: str) -> Prediction:
        """Returns the prediction for one whole picture; waits for its batch."""
        (prediction,) = self._predict_batch([self._load(0, source)])
        return prediction

    def close(self, seconds: float | None = None) -> None:
        """Ends the thread when what was asked is answered.

        Args:
          seconds: how long to wait for that; None for as long as it takes.
        """
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._worker.join(seconds)

    def _answers(self, pixels: list[np.ndarray], sources: list[str]) -> Answers:
        job = _Job(pixels)
        with self._changed:
            if not self._is_open:
                raise RuntimeError(_ENDED)
            self._jobs.append(job)
            self._changed.notify()
        return job.answers.result()

    def _work(self) -> None:
        try:
            while jobs := self._taken():
                self._compute(jobs)
        finally:
            with self._changed:
                self._is_open = False
            for job in self._jobs:
                job.answers.set_exception(RuntimeError(_ENDED))

    def _compute(self, jobs: list[_Job]) -> None:
        pixels = [one for job in jobs for one in job.pixels]
        started = time.perf_counter()
        try:
            classes, unlike = self._model._answers(pixels, [""] * len(pixels))
            seconds = time.perf_counter() - started
            ends = accumulate(len(job.pixels) for job in jobs)
            rows = [slice(end - len(job.pixels), end) for job, end in zip(jobs, ends, strict=True)]
            answers = [(_of(classes, those), _of(unlike, those)) for those in rows]
        except BaseException as error:  # whatever it is, those who wait get it, and the next batch is computed
            for job in jobs:
                job.answers.set_exception(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.answers.set_result(answer)
        self._done(len(pixels), seconds)

    def _taken(self) -> list[_Job]:
        """Waits for work and takes what fits into a batch; returns nothing when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or not self._is_open)
            end = time.monotonic() + _PATIENCE_S
            while self._is_open and (left := end - time.monotonic()) > 0:
                waiting = sum(len(job.pixels) for job in self._jobs)
                if waiting >= min(self._batch_size, self._expected()):
                    break
                self._changed.wait(left)
            taken: list[_Job] = []
            count = 0
            while self._jobs and (not taken or count + len(self._jobs[0].pixels) <= self._batch_size):
                taken.append(self._jobs.popleft())
                count += len(taken[-1].pixels)
            return taken


def _of(values: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {task: of[rows] for task, of in values.items()}
