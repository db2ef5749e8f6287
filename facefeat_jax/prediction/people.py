"""Predictions for the people in a picture: each head looks at the part that it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from facefeat_jax.data.images import BadImageError, decode
from facefeat_jax.errors import UserError
from facefeat_jax.prediction.boxes import Boxes
from facefeat_jax.prediction.crops import WHOLE, Box, Person, crop
from facefeat_jax.prediction.drawing import Album
from facefeat_jax.prediction.faces import FaceFinder, open_finder
from facefeat_jax.prediction.predictor import Prediction, Predictor, content_of, each

NO_FACE = "no face found"
NO_BOX = "no box given"

# Pictures at a time: they may be large, and each has several crops.
WINDOW = 8

Locate = Callable[[str, np.ndarray], list[Box]]
"""Takes a picture's name and pixels; returns the faces' boxes, which may reach outside."""


@dataclass(frozen=True)
class Found:
    """A picture and the predictions for its people.

    Attributes:
      source: the file's name.
      picture: RGB; None where the file can't be used, or where pictures are not kept.
      predictions: one for each person; a single one without a person where there is none, or an error.
    """

    source: str
    picture: Image.Image | None
    predictions: list[Prediction]


def locate_by(finder: FaceFinder) -> Locate:
    """Returns a way to locate people: where their faces are found."""
    return lambda _, pixels: finder(pixels)


def locate_from(boxes: Boxes) -> Locate:
    """Returns a way to locate people: as a file of boxes says (`prediction.boxes.read_boxes`)."""
    return lambda source, pixels: boxes.of(source, (pixels.shape[1], pixels.shape[0]))


@dataclass
class _Picture:
    """A picture on its way: its people, and which crops stand for which heads."""

    source: str
    picture: Image.Image | None
    people: list[Person | None]
    crops: list[dict[str, Image.Image | None]]
    error: str | None = None

    def parts(self) -> Iterator[Image.Image]:
        """Yields the crops that there are, person by person."""
        for parts in self.crops:
            yield from (part for part in parts.values() if part is not None)


class PeoplePredictor:
    """Predicts for the people in pictures.

    Args:
      predictor: the model.
      locate: where the people are; None to take the picture as a whole for all heads.
      nobody: what is said of a picture in which there is none.
      frames: by head, what it looks at; the default is what its training pictures show.
      keep_pictures: whether `Found.picture` is given.
      threads: how many pictures are decoded and searched at a time.
    """

    def __init__(
        self,
        predictor: Predictor,
        locate: Locate | None,
        *,
        nobody: str = NO_FACE,
        frames: Mapping[str, str] | None = None,
        keep_pictures: bool = False,
        threads: int = 2,
    ):
        self._predictor = predictor
        self._locate = locate
        self._nobody = nobody
        if locate is None:
            frames = dict.fromkeys(predictor.spec.classes, WHOLE)
        self._frames = {**predictor.spec.frames, **(frames or {})}
        self._keep = keep_pictures
        self._threads = threads

    def stream(self, sources: str | Path | Iterable[str | Path]) -> Iterator[Found]:
        """Yields each picture with its predictions, in order, holding two windows of them at most."""
        remaining = map(str, each(sources))
        with ThreadPoolExecutor(self._threads) as pool:

            def begun() -> list[Future[_Picture]]:
                return [pool.submit(self._look, source) for source in islice(remaining, WINDOW)]

            current = begun()
            while current:
                # The next ones are decoded and searched while these are computed.
                following = begun()
                pictures = [future.result() for future in current]
                answers = iter(self._predictor.predict([part for picture in pictures for part in picture.parts()]))
                for picture in pictures:
                    yield self._done(picture, answers)
                current = following

    def _look(self, source: str) -> _Picture:
        try:
            picture = decode(content_of(Path(source)), self._predictor.spec.decode)
        except BadImageError as error:
            return _Picture(source, None, [], [], str(error))
        if self._locate is None:
            return _Picture(source, picture if self._keep else None, [None], [{WHOLE: picture}])
        people: list[Person | None] = []
        crops = []
        for number, box in enumerate(self._locate(source, np.asarray(picture)), 1):
            person, parts = self._person(picture, number, box)
            people.append(person)
            crops.append(parts)
        return _Picture(source, picture if self._keep else None, people, crops)

    def _person(self, picture: Image.Image, number: int, box: Box) -> tuple[Person, dict[str, Image.Image | None]]:
        inside = box.within(picture.size)
        size = f"{picture.width} by {picture.height} pixels"
        if inside is None:
            return Person(number, box, f"the box lies outside the picture of {size}"), {}
        notes = []
        if (inside.width * inside.height) < 0.75 * box.width * box.height:
            notes.append(f"the box reaches outside the picture of {size}")
        parts = {frame: crop(picture, box, frame) for frame in dict.fromkeys(self._frames.values())}
        lacking = [task for task, frame in self._frames.items() if parts[frame] is None]
        if lacking:
            notes.append(f"too little in the picture for {', '.join(lacking)}")
        return Person(number, box, "; ".join(notes)), parts

    def _done(self, picture: _Picture, answers: Iterator[Prediction]) -> Found:
        if picture.error is not None:
            return Found(picture.source, None, [Prediction(picture.source, {}, picture.error)])
        if not picture.people:
            return Found(picture.source, picture.picture, [Prediction(picture.source, {}, note=self._nobody)])
        predictions = []
        for person, parts in zip(picture.people, picture.crops, strict=True):
            said = {frame: next(answers) for frame, part in parts.items() if part is not None}
            heads = {task: said[frame].heads[task] for task, frame in self._frames.items() if frame in said}
            some = next(iter(said.values()), Prediction(picture.source, {}))
            note = person.note if person else ""
            predictions.append(replace(some, source=picture.source, heads=heads, person=person, note=note or None))
        return Found(picture.source, picture.picture, predictions)


def people_of(
    predictor: Predictor, *, boxes: Boxes | None = None, face_model: Path | None = None, draw: Path | None = None
) -> Callable[[Iterable[str | Path]], Iterator[Prediction]]:
    """Returns what `facefeat predict` calls: from files to predictions, drawn on the way where that is wanted.

    Args:
      predictor: the model.
      boxes: of a file (`prediction.boxes.read_boxes`).
      face_model: a YuNet ONNX file; None for OpenCV's own cascade. Without `boxes` faces are looked for.
      draw: folder for the labelled pictures.

    Raises:
      UserError: a file can't be read, the folder can't be made, or OpenCV is not installed.
    """
    if boxes:
        found = PeoplePredictor(predictor, locate_from(boxes), nobody=NO_BOX, keep_pictures=bool(draw))
    else:
        found = PeoplePredictor(predictor, locate_by(open_finder(face_model)), keep_pictures=bool(draw))
    return partial(_drawn, found, draw)


def origin_of(*, boxes: Boxes | None = None, face_model: Path | None = None) -> dict[str, str]:
    """Returns what says where the people are, as `people_of` is told: a name, and a file's SHA-256.

    Raises:
      UserError: the file can't be read.
    """
    if boxes:
        return {"boxes": boxes.sha256}
    if face_model is None:
        return {"faces": "Haar cascade"}
    try:
        return {"faces": hashlib.sha256(face_model.read_bytes()).hexdigest()}
    except OSError as error:
        raise UserError(f"{face_model} can't be read ({error.strerror or error})") from error


def whole_of(predictor: Predictor, draw: Path) -> Callable[[Iterable[str | Path]], Iterator[Prediction]]:
    """Returns the same for pictures that are taken as they are: the predictions are `Predictor.stream`'s."""
    return partial(_drawn, PeoplePredictor(predictor, None, keep_pictures=True), draw)


def _drawn(predictor: PeoplePredictor, draw: Path | None, sources: Iterable[str | Path]) -> Iterator[Prediction]:
    album = Album(draw) if draw else None
    for found in predictor.stream(sources):
        if album and found.picture is not None:
            album.add(found.source, found.picture, found.predictions)
        yield from found.predictions
