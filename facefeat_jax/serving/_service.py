"""From uploaded pictures to answers: few threads decode, one computes, and what waits is bounded."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image

from facefeat_jax.data._budget import FILES
from facefeat_jax.prediction._faces import open_finder
from facefeat_jax.prediction._pictures import PicturePredictor
from facefeat_jax.prediction.answers import Prediction
from facefeat_jax.prediction.crops import Box
from facefeat_jax.prediction.people import NO_BOX, PeoplePredictor, locate_by
from facefeat_jax.serving._batching import BatchedPredictor
from facefeat_jax.serving._metrics import Metrics
from facefeat_jax.system.runtime import cores

_END_S = 3.0  # for threads that are in the middle of a picture when the service is closed

Way = Literal["whole", "faces", "boxes"]
"""What is answered for: whole pictures, the people whose faces are found, or those in given boxes."""


@dataclass(frozen=True)
class Upload:
    """A picture that came with a request.

    Attributes:
      file: its content.
      size: bytes of it.
      boxes: faces in it, where they were given.
      are_shares: whether they are shares of its width and height instead of pixels.
    """

    file: IO[bytes]
    size: int
    boxes: tuple[Box, ...] = ()
    are_shares: bool = False


class Places:
    """How many pictures may be in work or waiting; used by the event loop's thread alone.

    Args:
      most: that many.
    """

    def __init__(self, most: int):
        self.most = most
        self.taken = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no place."""
        return self.taken >= self.most

    def take(self, count: int) -> bool:
        """Takes places; returns whether there were as many."""
        if self.taken + count > self.most:
            return False
        self.taken += count
        return True

    def give_back(self, count: int) -> None:
        """Gives places back."""
        self.taken -= count


class Service:
    """Answers for uploads.

    Args:
      model: what computes; only this service uses it from now on.
      queue: how many pictures may be in work or waiting.
      face_model: a YuNet ONNX file to find faces with; None for OpenCV's cascade.

    Attributes:
      places: the bound of the queue. Whoever calls `answer` has taken a place for each picture.
      can_find_faces: whether OpenCV is installed.

    Raises:
      UserError: the face model can't be used.
    """

    def __init__(self, model: PicturePredictor, *, queue: int, face_model: Path | None = None):
        self.places = Places(queue)
        self.metrics = Metrics(model.fingerprint(), lambda: self.places.taken, queue)
        self._model = BatchedPredictor(
            model, read=self._read, expected=lambda: self.places.taken, done=self.metrics.batch
        )
        # Twice a batch: while one is computed, the next is decoded. More than there are cores, so that slow pictures
        # don't hold up all others. Their memory is bounded by data._budget.
        threads = min(2 * model._batch_size, queue, 4 * cores() + 4)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="picture")
        self._held: dict[str, Upload] = {}
        self._keys = map(str, itertools.count())
        self._people = {"boxes": PeoplePredictor(self._model, self._boxes_of, nobody=NO_BOX, threads=1)}
        try:
            finder = open_finder(face_model)
        except ModuleNotFoundError:
            if face_model is not None:
                raise
        else:
            self._people["faces"] = PeoplePredictor(self._model, locate_by(finder), threads=1)
        self.can_find_faces = "faces" in self._people

    @property
    def is_alive(self) -> bool:
        """Whether answers can be expected."""
        return self._model.is_alive

    async def answer(self, uploads: list[Upload], way: Way) -> list[list[Prediction]]:
        """Returns the answers for each picture: one, or with `faces` and `boxes` one for each person in it."""
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(self._pool, self._answer, upload, way) for upload in uploads]
        # All of them: the pictures' files stay open until no thread reads them.
        found = await asyncio.gather(*waiting, return_exceptions=True)
        answers = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            self.metrics.answered(one)
            answers.append(one)
        return answers

    def close(self) -> bool:
        """Ends the threads, and waits 3 s at most for what they have begun: a decoder can't be interrupted.

        Returns:
          Whether all of them have ended. Python waits for the others when the process ends.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + _END_S
        for thread in self._pool._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._model.close(max(0.0, end - time.monotonic()))
        return not (self.is_alive or any(thread.is_alive() for thread in self._pool._threads))

    def _answer(self, upload: Upload, way: Way) -> list[Prediction]:
        key = next(self._keys)
        self._held[key] = upload
        try:
            if way == "whole":
                return [self._model.answer(key)]
            (found,) = self._people[way].stream([key])
            return found.predictions
        finally:
            with suppress(KeyError):
                del self._held[key]

    def _read(self, key: str) -> AbstractContextManager[bytes]:
        return _content(self._held[key])

    def _boxes_of(self, key: str, picture: Image.Image) -> list[Box]:
        upload = self._held[key]
        width, height = picture.size if upload.are_shares else (1, 1)
        return [one.scaled(width, height) for one in upload.boxes]


@contextmanager
def _content(upload: Upload) -> Iterator[bytes]:
    with FILES.holding(upload.size):
        upload.file.seek(0)
        yield upload.file.read()
