"""Predictions for the people in a picture: each head looks at the part that it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from facefeat_jax.data._decoder_limits import MAX_PIXELS
from facefeat_jax.data._frames import FACES
from facefeat_jax.data._worker_threads import worker_threads
from facefeat_jax.data.images import BadImageError, decoded, pixels_resized
from facefeat_jax.prediction._drawing import Album
from facefeat_jax.prediction._faces import FaceFinder, open_finder
from facefeat_jax.prediction._pictures import PicturePredictor, each
from facefeat_jax.prediction.answers import Prediction, unlike_note
from facefeat_jax.prediction.boxes import Boxes
from facefeat_jax.prediction.crops import WHOLE, Box, Person, crop, place
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say

NO_FACE = "no face found"
NO_BOX = "no box given"

# Pictures at a time: they may be large, and each has several crops.
WINDOW = 8

# Of resized crops, in bytes: cut while a picture is searched, and cut at a time where it has more people than that.
_AHEAD_BYTES = 4 * 2**20
_CHUNK_BYTES = 64 * 2**20

Locate = Callable[[str, Image.Image], list[Box]]
"""Takes a picture's name and the picture, RGB; returns the faces' boxes, which may reach outside."""


@dataclass(frozen=True)
class PicturePredictions:
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
    return lambda _, picture: finder(np.asarray(picture))


def locate_from(boxes: Boxes) -> Locate:
    """Returns a way to locate people: as a file of boxes says (`prediction.boxes.read_boxes`)."""
    return lambda source, picture: boxes.of(source, picture.size)


@dataclass
class _Picture:
    """A picture on its way.

    Attributes:
      source: the file's name.
      people: who is in it; None stands for the picture as a whole.
      frames: for each of them, the frames that there are crops of.
      rows: the first crops, person by person, as the model gets them.
      error: what is wrong with the picture.
      notes: remarks on it.
    """

    source: str
    people: list[Person | None]
    frames: list[list[str]]
    rows: list[np.ndarray]
    error: str | None = None
    notes: tuple[str, ...] = ()


class PeoplePredictor:
    """Predicts for the people in pictures.

    Args:
      predictor: the model.
      locate: where the people are; None to take the picture as a whole for all heads.
      nobody: the note for a picture without people.
      frames: by head, what it looks at; the default is what its training pictures show.
      keep_pictures: whether `PicturePredictions.picture` is given.
      threads: how many pictures are decoded and searched at a time.
    """

    def __init__(
        self,
        predictor: PicturePredictor,
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

    def stream(self, sources: str | Path | Iterable[str | Path]) -> Iterator[PicturePredictions]:
        """Yields each picture with its predictions, in order.

        Two windows of pictures are held, without their pixels but for a few small crops of each; memory does not grow
        with their size or with the number of people in one.
        """
        remaining = map(str, each(sources))
        with worker_threads(self._threads) as pool:

            def begun() -> list[Future[_Picture]]:
                return [pool.submit(self._look, source) for source in islice(remaining, WINDOW)]

            current = begun()
            while current:
                # The next ones are decoded and searched while these are computed.
                following = begun()
                pictures = [future.result() for future in current]
                answers = self._predictor.stream(row for picture in pictures for row in self._rows(picture))
                for picture in pictures:
                    yield self._done(picture, answers)
                current = following

    def _look(self, source: str) -> _Picture:
        notes: list[str] = []
        try:
            with self._decoded(source, notes) as picture:
                people: list[Person | None] = [None]
                frames = [[WHOLE]]
                if self._locate is not None:
                    boxes = self._locate(source, picture)
                    found = [self._person(picture.size, number, box) for number, box in enumerate(boxes, 1)]
                    people, frames = [item[0] for item in found], [item[1] for item in found]
                rows = self._cut(picture, people, frames, 0, self._rows_in(_AHEAD_BYTES))
        except BadImageError as error:
            return _Picture(source, [], [], [], str(error))
        return _Picture(source, people, frames, rows, notes=tuple(notes))

    @contextmanager
    def _decoded(self, source: str, notes: list[str] | None = None) -> Iterator[Image.Image]:
        # A crop is as large as the largest picture at most.
        policy, beside = self._predictor.spec.decode, 4 * MAX_PIXELS
        with self._predictor.read(source) as data, decoded(data, policy, beside=beside, notes=notes) as picture:
            yield picture

    def _rows_in(self, count: int) -> int:
        return max(1, count // (3 * self._predictor.spec.image_size**2))

    def _rows(self, picture: _Picture) -> Iterator[np.ndarray]:
        """Yields a picture's crops; those that were not cut when it was searched are cut some at a time.

        The picture is decoded anew for them: kept, it would be one of many, and its memory not free for others. Where
        that fails, as the file has changed, the rows that are missing are blank and the picture has an error.
        """
        yield from picture.rows
        done, count = len(picture.rows), sum(map(len, picture.frames))
        while done < count:
            try:
                with self._decoded(picture.source) as image:
                    until = done + self._rows_in(_CHUNK_BYTES)
                    rows = self._cut(image, picture.people, picture.frames, done, until)
            except BadImageError as error:
                picture.error = f"changed while it was read ({error})"
                rows = [np.zeros((self._predictor.spec.image_size,) * 2 + (3,), np.uint8)] * (count - done)
            yield from rows
            done += len(rows)

    def _cut(
        self,
        picture: Image.Image,
        people: Sequence[Person | None],
        frames: Sequence[Sequence[str]],
        start: int,
        stop: int,
    ) -> list[np.ndarray]:
        """Returns some of the crops, counted person by person, each resized as soon as it is cut."""
        spec = self._predictor.spec
        wanted = ((person, frame) for person, of in zip(people, frames, strict=True) for frame in of)
        rows = []
        for person, frame in islice(wanted, start, stop):
            part = crop(picture, person.face, frame) if person else picture
            assert part is not None  # there is a place for it
            rows.append(pixels_resized(part, spec.image_size, spec.decode, interpolation=spec.interpolation))
        return rows

    def _person(self, size: tuple[int, int], number: int, box: Box) -> tuple[Person, list[str]]:
        """Returns a person and the frames that there are crops of."""
        inside = box.within(size)
        of = f"the picture of {size[0]} by {size[1]} pixels"
        if inside is None:
            return Person(number, box, f"the box lies outside {of}"), []
        notes = []
        if (inside.width * inside.height) < 0.75 * box.width * box.height:
            notes.append(f"the box extends beyond {of}")
        wanted = dict.fromkeys(self._frames.values())
        frames = [frame for frame in wanted if frame == WHOLE or place(size, box, frame) is not None]
        if lacking := [task for task, frame in self._frames.items() if frame not in frames]:
            notes.append(f"too little in the picture for {', '.join(lacking)}")
        return Person(number, box, "; ".join(notes)), frames

    def _done(self, picture: _Picture, answers: Iterator[Prediction]) -> PicturePredictions:
        answered = [{frame: next(answers) for frame in frames} for frames in picture.frames]
        if picture.error is not None:
            return PicturePredictions(picture.source, None, [Prediction(picture.source, {}, picture.error)])
        predictions = []
        for person, said in zip(picture.people, answered, strict=True):
            some = next(iter(said.values()), Prediction(picture.source, {}))
            if failed := next((item for item in said.values() if item.error), None):
                some, said = failed, {}
            heads = {task: said[frame].heads[task] for task, frame in self._frames.items() if frame in said}
            unlike = tuple(task for task, frame in self._frames.items() if frame in said and task in said[frame].unlike)
            one = replace(some, source=picture.source, heads=heads, person=person, unlike=unlike)
            strange = unlike_note(
                one, scene=person is None and any(self._predictor.spec.frames[t] in FACES for t in unlike)
            )
            notes = [*([person.note] if person and person.note else []), *picture.notes, strange]
            predictions.append(replace(one, note="; ".join(filter(None, notes)) or None))
        if not picture.people:
            note = "; ".join([self._nobody, *picture.notes])
            predictions.append(Prediction(picture.source, {}, note=note))
        return PicturePredictions(picture.source, self._picture(picture.source) if self._keep else None, predictions)

    def _picture(self, source: str) -> Image.Image | None:
        try:
            with self._decoded(source) as picture:
                return picture
        except BadImageError as error:  # an address that answered before
            say(f"{source}: not drawn ({error})")
            return None


def people_of(
    predictor: PicturePredictor,
    *,
    boxes: Boxes | None = None,
    face_model: Path | None = None,
    album: Album | None = None,
) -> Callable[[Iterable[str | Path]], Iterator[Prediction]]:
    """Returns what `facefeat predict` calls: from files to predictions, drawn on the way where that is wanted.

    Args:
      predictor: the model.
      boxes: boxes of a file (`prediction.boxes.read_boxes`).
      face_model: a YuNet ONNX file; None for OpenCV's own cascade. Without `boxes` faces are looked for.
      album: where the labelled pictures go.

    Raises:
      UserError: a file can't be read, or OpenCV is not installed.
    """
    if boxes:
        found = PeoplePredictor(predictor, locate_from(boxes), nobody=NO_BOX, keep_pictures=album is not None)
    else:
        found = PeoplePredictor(predictor, locate_by(open_finder(face_model)), keep_pictures=album is not None)
    return partial(_drawn, found, album)


def origin_of(*, boxes: Boxes | None = None, face_model: Path | None = None) -> dict[str, str]:
    """Returns the source of the faces, with the arguments of `people_of`: a name, and a file's SHA-256.

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


def whole_of(predictor: PicturePredictor, album: Album) -> Callable[[Iterable[str | Path]], Iterator[Prediction]]:
    """Returns the same for pictures that are taken as they are: the predictions are `Predictor.stream`'s."""
    return partial(_drawn, PeoplePredictor(predictor, None, keep_pictures=True), album)


def _drawn(predictor: PeoplePredictor, album: Album | None, sources: Iterable[str | Path]) -> Iterator[Prediction]:
    for found in predictor.stream(sources):
        if album and found.picture is not None:
            album.add(found.source, found.picture, found.predictions)
        yield from found.predictions
