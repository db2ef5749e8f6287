"""Figures of a model on pictures: metrics, groups, calibration, explanations, audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.evaluation.answers import Answers
    from facefeat_jax.evaluation.assessment import Assessment, assess, assess_run
    from facefeat_jax.evaluation.audit import Audit
    from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration, calibrate
    from facefeat_jax.evaluation.evaluate import Evaluator, answers_of_run, evaluate_run
    from facefeat_jax.evaluation.explain import Explainer, overlay
    from facefeat_jax.evaluation.metrics import HeadResult, head_result, probabilities
    from facefeat_jax.evaluation.scores import HeadScores, head_scores
    from facefeat_jax.evaluation.slices import Slice, Slicing, slice_head

_MODULES = {
    "facefeat_jax.evaluation.answers": ["Answers"],
    "facefeat_jax.evaluation.assessment": ["Assessment", "assess", "assess_run"],
    "facefeat_jax.evaluation.audit": ["Audit"],
    "facefeat_jax.evaluation.calibration": ["Calibration", "HeadCalibration", "calibrate"],
    "facefeat_jax.evaluation.evaluate": ["Evaluator", "answers_of_run", "evaluate_run"],
    "facefeat_jax.evaluation.explain": ["Explainer", "overlay"],
    "facefeat_jax.evaluation.metrics": ["HeadResult", "head_result", "probabilities"],
    "facefeat_jax.evaluation.scores": ["HeadScores", "head_scores"],
    "facefeat_jax.evaluation.slices": ["Slice", "Slicing", "slice_head"],
}

__all__ = [
    "Answers",
    "Assessment",
    "Audit",
    "Calibration",
    "Evaluator",
    "Explainer",
    "HeadCalibration",
    "HeadResult",
    "HeadScores",
    "Slice",
    "Slicing",
    "answers_of_run",
    "assess",
    "assess_run",
    "calibrate",
    "evaluate_run",
    "head_result",
    "head_scores",
    "overlay",
    "probabilities",
    "slice_head",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
