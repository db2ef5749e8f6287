"""Predictions for a picture, and the answers that need no model. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facefeat_jax.prediction._addresses import is_address
from facefeat_jax.prediction._videos import frame_of
from facefeat_jax.system.files import opened

if TYPE_CHECKING:
    from facefeat_jax.prediction.crops import Person


@dataclass(frozen=True)
class HeadPrediction:
    """The prediction of one head for a picture.

    Attributes:
      label: name of the most probable class.
      probability: probability of that class, from 0 to 1, calibrated if the run is.
      probabilities: probability of every class, by name; they sum to 1.
      unsure: whether the probability is below the calibrated threshold, or `unlike` holds; don't rely on `label` then.
      unlike: whether the head answers `unsure` because the picture is unlike those that it was trained on.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    unsure: bool = False
    unlike: bool = False


@dataclass(frozen=True)
class Prediction:
    """The predictions of the model for a picture, or why there are none.

    Attributes:
      source: name of the file, or `#n` for the n-th picture (from 0) without a name.
      heads: predictions by task; empty if the picture can't be used.
      error: what is wrong with the picture, or None.
      person: the person it is about, with `--faces` or `--boxes`; None for the whole picture.
      note: a remark, for example that no face was found or that the picture has a single colour; or None.
      unlike: heads whose training pictures it is unlike, whether they withhold their answer or not.
    """

    source: str
    heads: dict[str, HeadPrediction]
    error: str | None = None
    person: Person | None = None
    note: str | None = None
    unlike: tuple[str, ...] = ()


def unlike_note(prediction: Prediction, *, scene: bool) -> str:
    """Returns the note for a picture that is unlike the training pictures, whose answers stay.

    Args:
      prediction: about the picture.
      scene: whether a head that is for faces got a whole picture.
    """
    stay = [task for task in prediction.unlike if not prediction.heads[task].unlike]
    parts = [f"unlike the training pictures of {', '.join(stay)}"] if stay else []
    if prediction.unlike and scene:
        parts.append("if it shows more than a face, try --faces")
    return "; ".join(parts)


@dataclass
class Tally:
    """Counts answers on their way to the output.

    Attributes:
      pictures: number of pictures with an answer; a picture with several people counts once.
      bad: number of pictures that can't be used.
    """

    pictures: int = 0
    bad: int = 0

    def counted(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Yields the answers, each counted before it is yielded."""
        for prediction in predictions:
            self.pictures += prediction.person is None or prediction.person.number == 1
            self.bad += prediction.error is not None
            yield prediction


def unreadable(files: Iterable[str]) -> dict[str, Prediction] | None:
    """Returns the answer for each file if none can be opened; None if one can, because that needs a model."""
    answers = {}
    for name in files:
        if is_address(name) or frame_of(name):
            return None
        try:
            with opened(name):
                return None
        except (OSError, ValueError) as error:
            answers[name] = Prediction(name, {}, not_read(error))
    return answers


def not_read(error: OSError | ValueError) -> str:
    """Returns the error text for a file that can't be read."""
    if isinstance(error, IsADirectoryError):
        return "can't be read: a directory without pictures"
    return f"can't be read: {(error.strerror if isinstance(error, OSError) else None) or error}"
