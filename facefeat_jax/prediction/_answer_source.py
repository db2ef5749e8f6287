"""What gives the answers for picture files: a model, or none where no file can be opened. Imports no JAX by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefeat_jax.prediction.answers import Prediction, unreadable
from facefeat_jax.runs._about import heads, is_exported, on_hub
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import wrote

if TYPE_CHECKING:
    from facefeat_jax.prediction._inputs import Reader
    from facefeat_jax.prediction._pictures import PicturePredictor
    from facefeat_jax.prediction.boxes import Boxes
    from facefeat_jax.runs.checkpoints import Which


@dataclass(frozen=True)
class AnswerSource:
    """Gives the answers for picture files.

    Attributes:
      tasks: names of the heads, in the order of the output.
      stream: takes names of files and yields their answers, in the same order: one for each picture or, where people
        are looked for, one for each person in it.
      group: number of pictures that are answered together.
      about: returns what the answers depend on beside the pictures, as JSON values. Reads all weights.
      written: finishes what is written beside the answers; returns a line for each folder or video.
    """

    tasks: tuple[str, ...]
    stream: Callable[[Iterable[str]], Iterator[Prediction]]
    group: int = 1
    about: Callable[[], dict[str, Any]] = dict
    written: Callable[[], list[str]] = list


def without_model(run: Path, files: Sequence[str]) -> AnswerSource | None:
    """Returns the source where no file can be opened, which takes no model: each answer is the reason.

    Returns None where a file can be opened, or the names of the run's heads can't be read.
    """
    answers = unreadable(files)
    tasks = None if answers is None else heads(run)
    return AnswerSource(tasks, partial(map, answers.__getitem__)) if answers is not None and tasks else None


def of_model(
    run: Path,
    *,
    batch_size: int = 32,
    checkpoint: Which = "newest",
    find_faces: bool = False,
    face_model: Path | None = None,
    boxes: Boxes | None = None,
    draw: Path | None = None,
    explain: Path | None = None,
    allow_private: bool = False,
    read: Reader | None = None,
) -> AnswerSource:
    """Loads the model of a run, or of an exported file.

    Args:
      run: the run folder, an ONNX file that `facefeat export` wrote, which is run without JAX, or `hf://owner/name`.
      batch_size: pictures per batch.
      checkpoint: as in `Predictor.from_run`.
      find_faces: whether to find the faces in each picture and to answer for each person.
      face_model: a YuNet ONNX file to find them with, which implies `find_faces`; None for OpenCV's Haar cascade.
      boxes: where the faces are, in place of finding them.
      draw: folder for copies of the pictures with boxes and labels.
      explain: folder for an image per picture that shows which parts support each answer. For whole pictures.
      allow_private: whether addresses may lead to hosts that are not on the public internet.
      read: gives the content of a picture by its name; the default reads files and addresses.

    Raises:
      UserError: the run, the face model or a folder can't be used, or OpenCV is not installed.
    """
    from facefeat_jax.prediction._drawing import Album
    from facefeat_jax.prediction._inputs import reader
    from facefeat_jax.prediction.people import WINDOW, origin_of, people_of, whole_of

    album = Album(draw) if draw else None
    are_whole = boxes is None and face_model is None and not find_faces
    # Crops and drawings read a picture again while it is one of two windows.
    read = read or reader(allow_private=allow_private, again=0 if are_whole and album is None else 3 * WINDOW)
    predictor: PicturePredictor
    if is_exported(run):
        from facefeat_jax.prediction.exported import OnnxPredictor

        predictor = OnnxPredictor(run, batch_size=batch_size, read=read)
    elif (model := on_hub(run)) is not None:
        from facefeat_jax.prediction.predictor import Predictor

        name, revision = model
        predictor = Predictor.from_hub(name, revision=revision, batch_size=batch_size, explain=explain, read=read)
    else:
        from facefeat_jax.prediction.predictor import Predictor

        predictor = Predictor.from_run(run, batch_size=batch_size, checkpoint=checkpoint, explain=explain, read=read)
    stream: Callable[[Iterable[str]], Iterator[Prediction]]
    origin: Callable[[], dict[str, str]] = dict
    if are_whole:
        stream, group = predictor.stream if album is None else whole_of(predictor, album), batch_size
    else:
        stream, group = people_of(predictor, boxes=boxes, face_model=face_model, album=album), WINDOW
        origin = partial(origin_of, boxes=boxes, face_model=face_model)
    if predictor.likeness is not None and predictor.likeness.drawn:
        stream = partial(_warned, run, stream)

    def written() -> list[str]:
        lines = album.written() if album else []
        return lines + ([wrote(predictor.explanations.count, "picture", explain)] if predictor.explanations else [])

    about = partial(_about, predictor, origin)
    return AnswerSource(tuple(predictor.spec.classes), stream, group, about, written)


def _warned(
    run: Path, stream: Callable[[Iterable[str]], Iterator[Prediction]], names: Iterable[str]
) -> Iterator[Prediction]:
    """Says, before the first answer for a picture that is not like drawn ones, that the model knows only those."""
    is_said = False
    for prediction in stream(names):
        if prediction.unlike and not is_said:
            say(f"{run} was trained on drawings alone; its answers for photographs mean nothing")
            is_said = True
        yield prediction


def _about(predictor: PicturePredictor, origin: Callable[[], dict[str, str]]) -> dict[str, Any]:
    about: dict[str, Any] = {"model": predictor.fingerprint(), "classes": dict(predictor.spec.classes)}
    if found := origin():
        about["people"] = found
    return about
