"""Figures of a model on pictures: metrics, groups, calibration, explanations, audit."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.evaluation.answers import Answers as Answers
    from facefeat_jax.evaluation.assessment import Assessment as Assessment
    from facefeat_jax.evaluation.assessment import assess as assess
    from facefeat_jax.evaluation.assessment import assess_run as assess_run
    from facefeat_jax.evaluation.audit import Audit as Audit
    from facefeat_jax.evaluation.calibration import Calibration as Calibration
    from facefeat_jax.evaluation.calibration import HeadCalibration as HeadCalibration
    from facefeat_jax.evaluation.calibration import calibrate as calibrate
    from facefeat_jax.evaluation.evaluate import Evaluator as Evaluator
    from facefeat_jax.evaluation.evaluate import answers_of_run as answers_of_run
    from facefeat_jax.evaluation.evaluate import evaluate_run as evaluate_run
    from facefeat_jax.evaluation.explain import Explainer as Explainer
    from facefeat_jax.evaluation.explain import overlay as overlay
    from facefeat_jax.evaluation.metrics import HeadResult as HeadResult
    from facefeat_jax.evaluation.metrics import head_result as head_result
    from facefeat_jax.evaluation.metrics import probabilities as probabilities
    from facefeat_jax.evaluation.scores import HeadScores as HeadScores
    from facefeat_jax.evaluation.scores import head_scores as head_scores
    from facefeat_jax.evaluation.slices import Slice as Slice
    from facefeat_jax.evaluation.slices import Slicing as Slicing
    from facefeat_jax.evaluation.slices import slice_head as slice_head

public_names.attach(__name__)
