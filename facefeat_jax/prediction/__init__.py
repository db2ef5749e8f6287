"""Answers for pictures, with a trained model."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.prediction.answers import HeadPrediction as HeadPrediction
    from facefeat_jax.prediction.answers import Prediction as Prediction
    from facefeat_jax.prediction.boxes import Boxes as Boxes
    from facefeat_jax.prediction.boxes import read_boxes as read_boxes
    from facefeat_jax.prediction.crops import Box as Box
    from facefeat_jax.prediction.crops import Person as Person
    from facefeat_jax.prediction.exported import OnnxPredictor as OnnxPredictor
    from facefeat_jax.prediction.people import PeoplePredictor as PeoplePredictor
    from facefeat_jax.prediction.people import people_of as people_of
    from facefeat_jax.prediction.predictor import Predictor as Predictor
    from facefeat_jax.prediction.stream import write_answers as write_answers

public_names.attach(__name__)
