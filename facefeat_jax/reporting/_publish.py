"""What an evaluation writes into the run folder: tables, calibration, report and model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facefeat_jax.data.examples import Examples
from facefeat_jax.data.pixels import PixelFormat
from facefeat_jax.evaluation._likeness import Likeness
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.assessment import (
    Assessment,
    RunAssessment,
    assess,
    evaluation_folder,
    likeness_of,
    write_assessment,
)
from facefeat_jax.evaluation.calibration import calibrate
from facefeat_jax.evaluation.explain import Explainer, overlay
from facefeat_jax.reporting._report_sections import ExamplePicture, choose_examples
from facefeat_jax.reporting.model_card import write_model_card
from facefeat_jax.reporting.report import write_report
from facefeat_jax.reporting.samples import training_samples
from facefeat_jax.reporting.table import guess_lines
from facefeat_jax.runs import run_folder
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.runs.unseen import halves
from facefeat_jax.system.progress import say, waiting

_OVERLAY_SIDE = 128  # pixels; smaller pictures are enlarged, so that the map is smooth


def publish(run: Path, found: RunAssessment) -> list[str]:
    """Writes what an evaluation found; on the run's own data also its calibration, report and model card.

    Returns:
      Lines that say where it lies.

    Raises:
      UserError: a file can't be written.
    """
    assessment, opened = found.assessment, found.found.run
    folder = evaluation_folder(run, assessment.data, opened.config.data.sources)
    write_assessment(folder, assessment, found.found.answers)
    lines = [f"wrote the tables to {folder}/"]
    if not assessment.calibrated_on_part or found.calibration is None:
        return lines
    training, validation = halves(opened, found.found.data_dir).train, found.found.examples
    explainer = Explainer(opened.model, opened.spec)
    found.calibration.write(run)
    answers, spec = found.found.answers, opened.spec
    _write_pages(run, assessment, found.likeness, answers, training, validation, explainer, spec)
    return [*lines, f"wrote {run / run_folder.REPORT} and {run / run_folder.MODEL_CARD}"]


def publish_training(
    run: Path,
    *,
    logits: dict[str, np.ndarray],
    step: int,
    training: Examples,
    validation: Examples,
    explainer: Explainer,
    spec: ModelSpec,
    sources: Sequence[str],
    batch_size: int,
) -> Assessment:
    """Evaluates a run that has just been trained, and writes all that `publish` does; names heads that learned nothing.

    Args:
      run: the run folder; its `results.json` is there.
      logits: logits of the final weights, of every head on every validation picture.
      step: step of the final weights.
      training: the pictures that were trained on.
      validation: those of the logits.
      explainer: Grad-CAM of the final weights.
      spec: what the model is.
      sources: the data sets.
      batch_size: batch size of the run.

    Raises:
      UserError: a file can't be written, or a logit is not finite.
    """
    answers = Answers.of(validation, spec.classes, logits)
    calibration = calibrate(answers, step=step)
    calibration.write(run)
    likeness, notes = likeness_of(answers, validation, explainer.model, spec, step, sources)
    assessment = assess(
        answers, calibration, data=sources, batch_size=batch_size, on_part=True, likeness=likeness, notes=notes
    )
    write_assessment(evaluation_folder(run, sources, sources), assessment, answers)
    _write_pages(run, assessment, likeness, answers, training, validation, explainer, spec)
    for line in guess_lines(assessment.scores):
        say(line)
    return assessment


def _write_pages(
    run: Path,
    assessment: Assessment,
    likeness: Likeness | None,
    answers: Answers,
    training: Examples,
    validation: Examples,
    explainer: Explainer,
    spec: ModelSpec,
) -> None:
    if likeness is not None:
        likeness.write(run)
    pixels = PixelFormat(spec.image_size, spec.decode, spec.interpolation)
    samples = training_samples(training, spec.classes, pixels=pixels)
    shown = _explained(choose_examples(answers), validation, explainer, pixels, tuple(spec.classes))
    write_report(run, samples=samples, assessment=assessment, shown=shown)
    write_model_card(run, spec, assessment, likeness)


def _explained(
    shown: Sequence[ExamplePicture], examples: Examples, explainer: Explainer, pixels: PixelFormat, tasks: Sequence[str]
) -> list[ExamplePicture]:
    """Returns what is shown with its pictures, and what speaks for each answer laid over them."""
    if not shown:
        return []
    from PIL import Image

    rows = np.stack([pixels.read(examples, example.index) for example in shown])
    with waiting("computing the Grad-CAM maps"):
        maps = explainer.maps(rows, tasks)
    found = []
    for number, example in enumerate(shown):
        image = rows[number]
        side = max(_OVERLAY_SIDE, pixels.image_size)
        large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        found.append(dataclasses.replace(example, image=image, overlay=overlay(large, maps[example.head][number])))
    return found
