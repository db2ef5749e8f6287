"""Predictions for pictures, from a trained run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image

from facefeat_jax.data._frames import FACES
from facefeat_jax.data._worker_threads import worker_threads
from facefeat_jax.data.images import BadImageError, decode_resized, pixels_resized
from facefeat_jax.data.placement import Placement
from facefeat_jax.evaluation._likeness import Likeness
from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration
from facefeat_jax.evaluation.metrics import probabilities
from facefeat_jax.forward import FEATURES, make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.prediction._explanations import Explanations
from facefeat_jax.prediction._inputs import Reader, content_of
from facefeat_jax.prediction.answers import HeadPrediction, Prediction, unlike_note
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError

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


class Predictor:
    """A model with its class names and preprocessing.

    Args:
      model: the model; it is put in evaluation mode.
      spec: trunk, class names and preprocessing of the model.
      batch_size: pictures per batch; they are split over this process's devices.
      threads: number of pictures to decode at the same time.
      calibration: calibration of the heads; None uses the raw probabilities.
      likeness: what the training pictures of the heads are like; None compares no picture with them.
      explain: folder for one image per picture that shows which parts support each answer (`evaluation.explain`).
      read: gives the content of a picture by its name; the default reads files.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        spec: ModelSpec,
        *,
        batch_size: int = 32,
        threads: int = 4,
        calibration: Calibration | None = None,
        likeness: Likeness | None = None,
        explain: Path | None = None,
        read: Reader = content_of,
    ):
        if batch_size < 1 or threads < 1:
            raise UserError(f"batch size and threads must be 1 or more, got {batch_size} and {threads}")
        model.eval()
        graphdef, params, batch_stats = split_values(model)
        self._placement = Placement(jax.local_devices())
        self._params, self._batch_stats = jax.device_put((params, batch_stats), self._placement.replicated)
        self._step = make_predict_step(graphdef, spec, model.trunk.dtype, features=bool(likeness and likeness.heads))
        self.likeness = likeness
        self._batch_size = batch_size
        self._threads = threads
        self.spec = spec
        self.read = read
        heads = calibration.heads if calibration else {}
        self._calibration = {task: heads.get(task, HeadCalibration()) for task in spec.classes}
        self.explanations = Explanations(explain, model, spec) if explain else None

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        *,
        batch_size: int = 32,
        threads: int = 4,
        checkpoint: Which = "newest",
        explain: Path | None = None,
        read: Reader = content_of,
    ) -> Predictor:
        """Loads a checkpoint of a run folder, `newest` or `best` (`run_folder.open_run`), with its calibration.

        Raises:
          UserError: the folder is not a run, or holds no checkpoint that can be read.
        """
        opened = open_run(Path(run), checkpoint)
        calibration = Calibration.read(Path(run), step=opened.step, tasks=opened.spec.classes)
        likeness = Likeness.read(Path(run), step=opened.step, tasks=opened.spec.classes)
        return cls(
            opened.model,
            opened.spec,
            batch_size=batch_size,
            threads=threads,
            calibration=calibration,
            likeness=likeness,
            explain=explain,
            read=read,
        )

    def fingerprint(self) -> str:
        """Returns a hash of weights, preprocessing and calibration. The same hash means the same answers."""
        about: list[Any] = [self.spec.to_json(), {task: asdict(fitted) for task, fitted in self._calibration.items()}]
        if self.likeness is not None and self.likeness.heads:
            about.append(self.likeness.to_json())
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for leaf in jax.tree.leaves((self._params, self._batch_stats)):
            digest.update(jax.device_get(leaf).tobytes())
        return digest.hexdigest()

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
        pixels = [picture.pixels for picture in loaded if picture.pixels is not None]
        classes: dict[str, np.ndarray] = {}
        unlike: dict[str, np.ndarray] = {}
        if pixels:
            # Few shapes, so few compilations: the next power of two, up to the batch size; a row for each device.
            padded = self._placement.round_up(min(self._batch_size, 1 << (len(pixels) - 1).bit_length()))
            batch = np.stack(pixels + [pixels[0]] * (padded - len(pixels)))
            rows = jax.device_put(batch, self._placement.table)
            tasks = tuple(self.spec.classes)
            found = self._placement.in_turn(self._step(self._params, self._batch_stats, rows, tasks=tasks))
            found = {name: value[: len(pixels)] for name, value in jax.device_get(found).items()}
            classes = {task: probabilities(found[task] / self._calibration[task].temperature) for task in tasks}
            if self.likeness is not None and self.likeness.heads:
                unlike = {task: head.unlike(found[FEATURES]) for task, head in self.likeness.heads.items()}
            if self.explanations:
                sources = [picture.source for picture in loaded if picture.pixels is not None]
                self.explanations.write(sources, batch, classes)
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
