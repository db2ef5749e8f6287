"""Answers for pictures, by whatever computes the probabilities. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from facefeat_jax.data._frames import FACES
from facefeat_jax.data._worker_threads import worker_threads
from facefeat_jax.data.images import BadImageError, decode_resized, pixels_resized
from facefeat_jax.prediction._inputs import Reader, content_of
from facefeat_jax.prediction.answers import HeadPrediction, Prediction, unlike_note
from facefeat_jax.runs._head_calibration import HeadCalibration
from facefeat_jax.system.errors import UserError

if TYPE_CHECKING:
    from facefeat_jax.prediction._explanations import Explanations
    from facefeat_jax.runs._head_likeness import Likeness

Image = str | Path | bytes | np.ndarray | Any  # a file, its content, a uint8 array [height, width, 3], or a PIL image
Images = Image | Iterable[Image]
"""One picture, or several: a list, an iterator, a uint8 array `[n, height, width, 3]`."""


_NO_NUMBER = "the model's answer is not a number; its weights may be damaged: try an earlier checkpoint"


@dataclass(frozen=True)
class _Loaded:
    """A picture as the model gets it, uint8 `[size, size, 3]`, or what is wrong with it."""

    source: str
    pixels: np.ndarray | None
    error: str | None = None
    note: str | None = None


class PicturePredictor:
    """A model with its class names and preprocessing; a subclass says how probabilities are computed.

    Args:
      spec: class names and preprocessing of the model.
      calibration: calibration of the heads; those that are missing are not calibrated.
      batch_size: pictures per batch.
      threads: number of pictures to decode at the same time.
      likeness: what the training pictures of the heads are like, where that is known.
      read: gives the content of a picture by its name; the default reads files.

    Attributes:
      explanations: where a subclass explains its answers as well.
    """

    explanations: Explanations | None = None

    def __init__(
        self,
        spec: Any,
        calibration: Mapping[str, HeadCalibration],
        *,
        batch_size: int = 32,
        threads: int = 4,
        likeness: Likeness | None = None,
        read: Reader = content_of,
    ):
        if batch_size < 1 or threads < 1:
            raise UserError(f"batch size and threads must be 1 or more, got {batch_size} and {threads}")
        self._batch_size = batch_size
        self._threads = threads
        self.spec = spec
        self.likeness = likeness
        self.read = read
        self._calibration = {task: calibration.get(task, HeadCalibration()) for task in spec.classes}

    def fingerprint(self) -> str:
        """Returns a hash of weights, preprocessing and calibration. The same hash means the same answers."""
        raise NotImplementedError

    def _answers(
        self, pixels: list[np.ndarray], sources: list[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Answers n pictures, `batch_size` at most.

        Returns:
          By head the calibrated probabilities `[n, classes]`, and whether the pictures are unlike those that it was
          trained on, bool `[n]`; heads that don't know that are missing there.
        """
        raise NotImplementedError

    def predict(self, images: Images) -> list[Prediction]:
        """Returns a prediction for each picture, in the same order. For a bad picture it has an `error` and no heads.

        Args:
          images: one picture, for a list with one prediction, or several. A picture is the path of a file, its content
            as bytes, a PIL image, or a uint8 array `[height, width, 3]`, RGB.

        Raises:
          UserError: that is neither a picture nor several of them.
        """
        return list(self.stream(images))

    def stream(self, images: Images) -> Iterator[Prediction]:
        """Yields a prediction for each picture, in the same order. Holds at most two batches; see `predict`."""
        numbered = iter(enumerate(each(images)))
        with worker_threads(self._threads) as pool:
            current = list(islice(numbered, self._batch_size))
            loaded = [pool.submit(self._load, *item) for item in current]
            while loaded:
                # The next batch is decoded while this one is computed.
                following = [pool.submit(self._load, *item) for item in islice(numbered, self._batch_size)]
                yield from self._predict_batch([future.result() for future in loaded])
                loaded = following

    def _load(self, number: int, image: Image) -> _Loaded:
        size, policy, interpolation = self.spec.image_size, self.spec.decode, self.spec.interpolation
        source = str(image) if isinstance(image, str | Path) else f"#{number}"
        notes: list[str] = []
        try:
            if isinstance(image, str | Path | bytes):
                with nullcontext(image) if isinstance(image, bytes) else self.read(str(image)) as content:
                    pixels = decode_resized(content, size, policy, interpolation=interpolation, notes=notes)
            else:
                pixels = pixels_resized(image, size, policy, interpolation=interpolation, notes=notes)
        except BadImageError as error:
            return _Loaded(source, None, str(error))
        return _Loaded(source, pixels, note="; ".join(notes) or None)

    def _predict_batch(self, loaded: list[_Loaded]) -> Iterator[Prediction]:
        good = [picture for picture in loaded if picture.pixels is not None]
        classes: dict[str, np.ndarray] = {}
        unlike: dict[str, np.ndarray] = {}
        if good:
            pixels = [picture.pixels for picture in good if picture.pixels is not None]
            classes, unlike = self._answers(pixels, [picture.source for picture in good])
        row = 0
        for one in loaded:
            if one.pixels is None:
                yield Prediction(one.source, {}, one.error)
                continue
            if all(np.isfinite(classes[task][row]).all() for task in classes):
                strange = tuple(task for task, values in unlike.items() if values[row])
                heads = {
                    task: _head(
                        names, classes[task][row], self._calibration[task], task in strange and self._withholds(task)
                    )
                    for task, names in self.spec.classes.items()
                }
                answer = Prediction(one.source, heads, unlike=strange)
                scene = any(self.spec.frames[task] in FACES for task in strange)
                notes = [one.note, unlike_note(answer, scene=scene)]
                yield replace(answer, note="; ".join(filter(None, notes)) or None)
            else:
                yield Prediction(one.source, {}, _NO_NUMBER)
            row += 1

    def _withholds(self, task: str) -> bool:
        return self.likeness is not None and self.likeness.heads[task].withholds


def each(images: Images) -> Iterable[Image]:
    """Returns the pictures, also where one is given on its own (Python would go through the letters of its name).

    Raises:
      UserError: that is neither a picture nor several of them.
    """
    is_one = isinstance(images, str | bytes | bytearray | memoryview | PathLike | PIL.Image.Image)
    if is_one or (hasattr(images, "ndim") and images.ndim < 4):
        return [images]
    if not isinstance(images, Iterable):
        raise UserError(
            f"pictures are paths, bytes, PIL images or uint8 arrays [height, width, 3], got {type(images).__name__}"
        )
    return images


def _head(names: Sequence[str], probability: np.ndarray, calibration: HeadCalibration, unlike: bool) -> HeadPrediction:
    best = int(np.argmax(probability))
    return HeadPrediction(
        names[best],
        float(probability[best]),
        {n: float(p) for n, p in zip(names, probability, strict=True)},
        bool(calibration.unsure(probability[best])) or unlike,
        unlike,
    )
