"""Answers for pictures, with a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.prediction.answers import HeadPrediction, Prediction
    from facefeat_jax.prediction.boxes import Boxes, read_boxes
    from facefeat_jax.prediction.crops import Box, Person
    from facefeat_jax.prediction.people import PeoplePredictor, people_of
    from facefeat_jax.prediction.predictor import Predictor
    from facefeat_jax.prediction.stream import write_answers

_MODULES = {
    "facefeat_jax.prediction.answers": ["HeadPrediction", "Prediction"],
    "facefeat_jax.prediction.boxes": ["Boxes", "read_boxes"],
    "facefeat_jax.prediction.crops": ["Box", "Person"],
    "facefeat_jax.prediction.people": ["PeoplePredictor", "people_of"],
    "facefeat_jax.prediction.predictor": ["Predictor"],
    "facefeat_jax.prediction.stream": ["write_answers"],
}

__all__ = [
    "Box",
    "Boxes",
    "HeadPrediction",
    "PeoplePredictor",
    "Person",
    "Prediction",
    "Predictor",
    "people_of",
    "read_boxes",
    "write_answers",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
