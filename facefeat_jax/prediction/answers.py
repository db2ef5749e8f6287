"""What is said of a picture, and what can be said without a model. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facefeat_jax.system.regular_file import opened

if TYPE_CHECKING:
    from facefeat_jax.prediction.crops import Person


@dataclass(frozen=True)
class HeadPrediction:
    """What one head says of a picture.

    Attributes:
      label: name of the most probable class.
      probability: probability of that class, calibrated where the run is.
      probabilities: probabilities of every class, by name; they add up to 1.
      unsure: whether the probability is below what the run's calibration asks of an answer: then `label` is none.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    unsure: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the model says of a picture, or why it can't.

    Attributes:
      source: the file's name, or `#n` for the n-th picture (from 0) of those that have no name.
      heads: by task; empty where the picture can't be used.
      error: what is wrong with the picture, or None.
      person: whom it is about, where people were looked for; None where the picture as a whole is meant.
      note: what else is to be said, such as that no face was found or that the picture is of a single colour, or None.
    """

    source: str
    heads: dict[str, HeadPrediction]
    error: str | None = None
    person: Person | None = None
    note: str | None = None


def unreadable(files: Iterable[str]) -> dict[str, Prediction] | None:
    """Returns the answer for each file where none of them can be opened; None where one can, and a model is needed."""
    answers = {}
    for name in files:
        try:
            with opened(name):
                return None
        except (OSError, ValueError) as error:
            answers[name] = Prediction(name, {}, not_read(error))
    return answers


def not_read(error: OSError | ValueError) -> str:
    """Returns what is said of a file that can't be read."""
    return f"can't be read: {(error.strerror if isinstance(error, OSError) else None) or error}"
