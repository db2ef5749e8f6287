"""Finding faces, with OpenCV: the Haar cascade that ships with it, or a YuNet model that you bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from facefeat_jax.prediction.crops import Box
from facefeat_jax.system.errors import UserError

FaceFinder = Callable[[np.ndarray], list[Box]]
"""Takes a picture, uint8 `[height, width, 3]`, RGB; returns the boxes of its faces, from left to right."""

# Larger pictures are looked at in this size, in pixels of the longer side; it finds faces from 24 pixels on there.
_LONGEST = 800
_LEAST_FACE = 24
# A face that fills the picture is found when there is something around it: this share of the longer side, of its edge.
_MARGIN = 0.15
# How a Haar box lies about the eyes, in distances between them: on CelebA's faces, whose eyes are at the same place in
# all pictures, from the middle box of them (docs/benchmarks/crops.md, the frame of the glasses set).
_BOX_SIDE, _BOX_BELOW_EYES = 2.72, 0.33


def is_asked_for(given: Path | None) -> bool:
    """Returns whether `--face-model` names YuNet, rather than a file."""
    return given is not None and str(given) == "yunet" and not given.exists()


def open_finder(model: Path | None = None) -> FaceFinder:
    """Returns a face finder; safe to call from several threads.

    Args:
      model: a YuNet ONNX file for OpenCV's `FaceDetectorYN`; None for the Haar cascade.

    Raises:
      UserError: OpenCV is not installed, or the file is not a model that it reads.
    """
    import cv2  # noqa: F401 - a missing installation is reported before a model is loaded

    return HaarFinder() if model is None else YuNetFinder(model)


class _Idle:
    """What holds state while it runs: as many as threads use at a time, each loaded once.

    Args:
      load: makes one.
    """

    def __init__(self, load: Callable[[], Any]):
        self._load = load
        self._free: SimpleQueue[Any] = SimpleQueue()

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Gives one that no other thread uses."""
        try:
            found = self._free.get_nowait()
        except Empty:
            found = self._load()
        try:
            yield found
        finally:
            self._free.put(found)


class HaarFinder:
    """OpenCV's frontal face cascade (`alt2`): boxes are squares from the forehead to the chin.

    Faces in profile, turned by more than some 20 degrees or half hidden are mostly missed.

    Args:
      cascade: name of the file among OpenCV's.
      neighbours: how many overlapping finds make a face; more of them miss more and invent less.
    """

    def __init__(self, cascade: str = "haarcascade_frontalface_alt2.xml", neighbours: int = 4):
        self._cascade, self._neighbours = cascade, neighbours
        self._classifiers = _Idle(self._classifier)

    def _classifier(self) -> Any:
        import cv2

        folder: str = cv2.data.haarcascades  # type: ignore[attr-defined]
        return cv2.CascadeClassifier(folder + self._cascade)

    def __call__(self, pixels: np.ndarray) -> list[Box]:
        import cv2

        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, _LONGEST / max(grey.shape))
        if scale < 1:
            size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        margin = round(_MARGIN * max(grey.shape))
        grey = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        with self._classifiers.one() as classifier:
            found = classifier.detectMultiScale(
                grey, scaleFactor=1.1, minNeighbors=self._neighbours, minSize=(_LEAST_FACE, _LEAST_FACE)
            )
        boxes = [Box(*(float(v) for v in (x, y, x + w, y + h))) for x, y, w, h in found]
        return _in_picture([_scaled(box, -margin, 1 / scale) for box in boxes], pixels)


class YuNetFinder:
    """OpenCV's `FaceDetectorYN` with a model file; finds turned and small faces too.

    Its boxes are put about the eyes as a Haar box would lie, which is what crops are measured in.

    Args:
      model: the ONNX file.
      score: least score of a face, in [0, 1].
    """

    def __init__(self, model: Path, score: float = 0.8):
        self._model, self._score = model, score
        self._detectors = _Idle(self._detector)
        with self._detectors.one():
            pass  # what is wrong with the file is said now

    def _detector(self) -> Any:
        import cv2

        if not self._model.is_file():
            raise UserError(
                f"face model {self._model} does not exist; give a YuNet ONNX file, or leave --face-model out"
            )
        try:
            return cv2.FaceDetectorYN.create(str(self._model), "", (320, 320), score_threshold=self._score)
        except cv2.error as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{self._model} is not a YuNet model that OpenCV reads ({reason})") from error

    def __call__(self, pixels: np.ndarray) -> list[Box]:
        import cv2

        scale = min(1.0, _LONGEST / max(pixels.shape[:2]))
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        seen = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
        with self._detectors.one() as detector:
            detector.setInputSize(size)
            _, found = detector.detect(cv2.cvtColor(seen, cv2.COLOR_RGB2BGR))
        rows = [] if found is None else found
        return _in_picture([_scaled(_about_eyes(row), 0, 1 / scale) for row in rows], pixels)


def _about_eyes(row: np.ndarray) -> Box:
    """Returns a Haar-like box of a YuNet row: x, y, width, height, five points (the eyes first), score."""
    eyes = np.asarray(row[4:8], float).reshape(2, 2)
    # Seen from the side the eyes draw together, and the face's own width is what is left.
    side = max(_BOX_SIDE * float(np.linalg.norm(eyes[0] - eyes[1])), float(row[2]))
    x, y = eyes.mean(axis=0)
    y += side * _BOX_BELOW_EYES / _BOX_SIDE
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def _scaled(box: Box, moved: float, scale: float) -> Box:
    return Box(*((value + moved) * scale for value in (box.left, box.top, box.right, box.bottom)))


def _in_picture(boxes: list[Box], pixels: np.ndarray) -> list[Box]:
    """Returns those whose centre is in the picture, from left to right; they may reach a little outside."""
    height, width = pixels.shape[:2]
    kept = [
        box for box in boxes if 0 <= (box.left + box.right) / 2 < width and 0 <= (box.top + box.bottom) / 2 < height
    ]
    return sorted(kept, key=lambda box: (box.left, box.top))
