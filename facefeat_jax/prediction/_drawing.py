"""The labelled picture: boxes around faces, and what the heads say beside them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facefeat_jax.prediction._videos import Reel, frame_of
from facefeat_jax.prediction.answers import HeadPrediction, Prediction
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.text import as_written, count, format_accuracy, one_line, wrote

_LEAST_SIDE, _MOST_SIDE = 240, 4096  # pixels: a smaller picture is enlarged, but not beyond the second
# Told apart by people who see colours differently (Okabe and Ito), and dark enough for white letters.
_COLOURS = ("#0072b2", "#b34700", "#00795a", "#a3497f", "#5b5b00", "#444444")


def drawn(picture: Image.Image, predictions: list[Prediction]) -> Image.Image:
    """Returns a copy of a picture with a box and a caption for each person, or a caption alone.

    A picture that is too small to be written on is enlarged.

    Args:
      picture: RGB.
      predictions: its people's, or one for the whole.
    """
    times = math.ceil(_LEAST_SIDE / min(picture.size)) if min(picture.size) < _LEAST_SIDE else 1
    if times * max(picture.size) > _MOST_SIDE:
        times = 1
    picture = picture.resize((times * picture.width, times * picture.height), Image.Resampling.LANCZOS)
    canvas = ImageDraw.Draw(picture)
    size = max(10, round(min(picture.size) / 28))
    font = ImageFont.load_default(size)
    line = max(1, size // 7)
    taken: list[tuple[int, int, int, int]] = []
    for prediction in predictions:
        person = prediction.person
        colour = _COLOURS[((person.number if person else 1) - 1) % len(_COLOURS)]
        if person:
            left, top, right, bottom = (
                times * side for side in (person.face.left, person.face.top, person.face.right, person.face.bottom)
            )
            canvas.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
        text = _caption(prediction)
        x0, y0, x1, y1 = canvas.multiline_textbbox((0, 0), text, font=font, spacing=line)
        width, height = round(x1 - x0) + 4 * line, round(y1 - y0) + 4 * line
        x, y = (left, bottom + line) if person else (0, picture.height - height)
        place = _free(round(x), round(y), width, height, picture.size, taken)
        taken.append(place)
        canvas.rectangle(place, fill=colour)
        canvas.multiline_text(
            (place[0] + 2 * line - x0, place[1] + 2 * line - y0), text, font=font, fill="white", spacing=line
        )
    return picture


def _caption(prediction: Prediction) -> str:
    heads = [one_line(f"{task}: {_answer(head)}") for task, head in prediction.heads.items()]
    number = [f"{prediction.person.number}"] if prediction.person and not heads else []
    return "\n".join(heads or [*number, prediction.note or ""]).strip()


def _answer(head: HeadPrediction) -> str:
    if head.unlike:
        return "unsure"  # as in the text: the label of a picture of another kind says nothing
    text = f"{as_written(head.label)} {format_accuracy(head.probability, 0)}"
    return f"unsure ({text})" if head.unsure else text


def _free(
    x: int, y: int, width: int, height: int, size: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """Returns the place of a caption: inside the picture and, where there is room below or above, beside the others."""

    def at(y: int) -> tuple[int, int, int, int]:
        left = max(0, min(x, size[0] - width))
        top = max(0, min(y, size[1] - height))
        return (left, top, left + width - 1, top + height - 1)

    others = np.array(taken, int).reshape(-1, 4)  # of thousands of people, compared at once

    def overlaps(place: tuple[int, int, int, int]) -> bool:
        left, top, right, bottom = others.T
        return bool(((place[0] <= right) & (left <= place[2]) & (place[1] <= bottom) & (top <= place[3])).any())

    below = range(y, max(y, size[1] - height) + 1, max(1, height // 2))
    above = range(y - height, -1, -max(1, height // 2))
    return next((place for top in (*below, *above) if not overlaps(place := at(top))), at(y))


class Album:
    """Writes labelled pictures into a folder, one for each picture, under its name; frames of a video as a video.

    Attributes:
      count: how many pictures it has written.

    Args:
      folder: made where it is not there.

    Raises:
      UserError: it can't be made.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._names: set[str] = set()
        self.count = 0
        self._reels: dict[str, Reel] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} can't be made ({error.strerror}); give --draw another folder") from error

    def add(self, source: str, picture: Image.Image, predictions: list[Prediction]) -> Path:
        """Writes a picture as PNG; pictures of one name from different folders get a number.

        Raises:
          UserError: it can't be written.
        """
        if frame := frame_of(source):
            return self._add_frame(*frame, drawn(picture, predictions))
        path = self._path(f"{Path(source).name}.png")
        try:
            drawn(picture, predictions).save(path)
        except OSError as error:
            raise UserError(f"{path} can't be written ({error.strerror or error})") from error
        self.count += 1
        return path

    def _add_frame(self, film: str, seconds: float, picture: Image.Image) -> Path:
        if film not in self._reels:
            # Never over an older file: it may be the film itself, or the part before an interruption.
            self._reels[film] = Reel(self._path(f"{Path(film).stem}-labelled.mp4", is_new=True))
        self._reels[film].add(picture, seconds)
        return self._reels[film].path

    def written(self) -> list[str]:
        """Finishes the videos; returns a line for what was written."""
        lines = [wrote(self.count, "picture", self._folder)] if self.count or not self._reels else []
        for reel in self._reels.values():
            reel.close()
            lines.append(f"wrote {reel.path} ({count(reel.count, 'frame')})")
        return lines

    def _path(self, wanted: str, *, is_new: bool = False) -> Path:
        """Returns a path of its own for a name: those from different folders get a number; so does an old file's."""
        stem, suffix, number = wanted[:-4], wanted[-4:], 1
        name = wanted
        while name in self._names or (is_new and os.path.lexists(self._folder / name)):
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._names.add(name)
        return self._folder / name
