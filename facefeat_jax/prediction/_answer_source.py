"""What gives the answers for picture files: a model, or none where no file can be opened. Imports no JAX by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefeat_jax.prediction.answers import Prediction, unreadable
from facefeat_jax.runs._about import heads
from facefeat_jax.system.progress import say

if TYPE_CHECKING:
    from facefeat_jax.prediction.boxes import Boxes
    from facefeat_jax.prediction.predictor import Predictor
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
    """

    tasks: tuple[str, ...]
    stream: Callable[[Iterable[str]], Iterator[Prediction]]
    group: int = 1
    about: Callable[[], dict[str, Any]] = dict


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
) -> AnswerSource:
    """Loads the model of a run.

    Args:
      run: the run folder.
      batch_size: pictures per batch.
      checkpoint: as in `Predictor.from_run`.
      find_faces: whether to find the faces in each picture and to answer for each person.
      face_model: a YuNet ONNX file to find them with, which implies `find_faces`; None for OpenCV's Haar cascade.
      boxes: where the faces are, in place of finding them.
      draw: folder for copies of the pictures with boxes and labels.
      explain: folder for an image per picture that shows which parts support each answer. For whole pictures.

    Raises:
      UserError: the run, the face model or a folder can't be used, or OpenCV is not installed.
    """
    from facefeat_jax.prediction.people import WINDOW, origin_of, people_of, whole_of
    from facefeat_jax.prediction.predictor import Predictor

    predictor = Predictor.from_run(run, batch_size=batch_size, checkpoint=checkpoint, explain=explain)
    stream: Callable[[Iterable[str]], Iterator[Prediction]]
    origin: Callable[[], dict[str, str]] = dict
    if boxes is None and face_model is None and not find_faces:
        stream, group = predictor.stream if draw is None else whole_of(predictor, draw), batch_size
    else:
        stream, group = people_of(predictor, boxes=boxes, face_model=face_model, draw=draw), WINDOW
        origin = partial(origin_of, boxes=boxes, face_model=face_model)
    if predictor.likeness is not None and predictor.likeness.drawn:
        stream = partial(_warned, run, stream)
    return AnswerSource(tuple(predictor.spec.classes), stream, group, partial(_about, predictor, origin))


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


def _about(predictor: Predictor, origin: Callable[[], dict[str, str]]) -> dict[str, Any]:
    about: dict[str, Any] = {"model": predictor.fingerprint(), "classes": predictor.spec.classes}
    if found := origin():
        about["people"] = found
    return about
