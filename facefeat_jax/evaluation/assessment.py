"""The whole evaluation of a run: figures with intervals, slices by group, calibration; written as JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.data.builders import is_drawn
from facefeat_jax.data.examples import Examples
from facefeat_jax.evaluation._calibration_check import CalibrationCheck, check_calibration
from facefeat_jax.evaluation._likeness import Likeness, withheld
from facefeat_jax.evaluation._likeness_check import features_of, fit_likeness
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import ERROR_RATE, Calibration, HeadCalibration, calibrate, fitting_part
from facefeat_jax.evaluation.evaluate import RunAnswers, answers_of_run, head_results
from facefeat_jax.evaluation.metrics import HeadResult
from facefeat_jax.evaluation.scores import HeadScores, head_scores
from facefeat_jax.evaluation.slices import Gap, GroupCoverage, Slicing, slice_head
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import EVALUATION, write_file, write_json
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.tables import csv_table

ASSESSMENT = "evaluation.json"


@dataclass(frozen=True)
class Assessment:
    """The result of an evaluation.

    Attributes:
      data: the data sets.
      pictures: how many.
      results: results of every head with labels, as `results.json` has them.
      scores: the same in full, with intervals.
      slicings: per head, by groups.
      left_out: per head, what could not be sliced, and why.
      calibration: per head, where there are pictures that it was not fitted on.
      calibrated_on_part: whether the calibration was fitted on a part of these pictures and checked on the rest.
        Otherwise it was fitted elsewhere and checked on all of them.
      notes: lines about differences from the run's data, and about pictures left out.
    """

    data: tuple[str, ...]
    pictures: int
    results: dict[str, HeadResult]
    scores: dict[str, HeadScores]
    slicings: dict[str, list[Slicing]]
    left_out: dict[str, list[str]]
    calibration: dict[str, CalibrationCheck]
    calibrated_on_part: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        return {
            "data": list(self.data),
            "pictures": self.pictures,
            "heads": {
                task: {
                    **self.results[task].to_json(),
                    **self.scores[task].to_json(),
                    "slices": [slicing.to_json() for slicing in self.slicings[task]],
                    "not_sliced": self.left_out[task],
                    "calibration": self.calibration[task].to_json() if task in self.calibration else None,
                }
                for task in self.scores
            },
            "calibrated_on_part": self.calibrated_on_part,
            "notes": list(self.notes),
        }

    def heads_csv(self) -> str:
        """Returns a table with a line for each figure of each head."""
        rows = []
        for task, scores in self.scores.items():
            for name, value in scores.values.items():
                low, high = scores.intervals[name] or (None, None)
                rows.append([task, name, *map(_cell, (value, low, high)), scores.n, scores.units])
        return csv_table(["head", "figure", "value", "low", "high", "pictures", "units"], rows)

    def slices_csv(self) -> str:
        """Returns a table with a line for each slice of each head."""
        header = ["head", "by", "predicted", "value", "pictures", "accuracy", "low", "high"]
        header += ["balanced_accuracy", "loss", "confidence", "small"]
        header += ["coverage", "coverage_low", "coverage_high", "coverage_pictures"]
        header += ["answered_accuracy", "answered_low", "answered_high"]
        rows = []
        for task, slicings in self.slicings.items():
            for slicing in slicings:
                for group in slicing.slices:
                    low, high = group.interval or (None, None)
                    figures = (group.accuracy, low, high, group.balanced_accuracy, group.loss, group.confidence)
                    flags = ("yes" if slicing.predicted else "no", "yes" if group.small else "no")
                    rows.append([task, slicing.by, flags[0], group.value, group.n, *map(_cell, figures), flags[1]])
                    rows[-1] += _coverage_cells(group.coverage)
        return csv_table(header, rows)


def assess(
    answers: Answers,
    calibration: Calibration | None,
    *,
    data: Sequence[str],
    batch_size: int,
    on_part: bool,
    likeness: Likeness | None = None,
    notes: tuple[str, ...] = (),
    crossings: bool = True,
) -> Assessment:
    """Evaluates answers.

    Args:
      answers: answers of all heads, as the model gives them.
      calibration: calibration of the run, or None.
      data: names of the data sets, for the report.
      batch_size: for `HeadResult.loss_of_batches`.
      on_part: whether the calibration was fitted on `fitting_part` of these pictures: it is then checked on the rest.
      likeness: that of the run, or None: answers that a head withholds by it count as not given.
      notes: for `Assessment.notes`.
      crossings: whether to slice by each two kinds of groups together as well.
    """
    tasks = [task for task in answers.classes if answers.count(task)]
    on = fitting_part(answers.units) if on_part else None
    fitted = {} if calibration is None else {task: calibration.heads.get(task, HeadCalibration()) for task in tasks}
    unanswered = withheld(likeness, answers)
    slicings = {
        task: slice_head(
            answers,
            task,
            crossings=crossings,
            calibration=fitted.get(task),
            fitted=on,
            withheld=unanswered.get(task),
        )
        for task in tasks
    }
    rest = np.ones(len(answers), bool) if on is None else ~on
    checked = answers.select(rest)
    checks = {
        task: check_calibration(checked, task, head, unanswered[task][rest] if task in unanswered else None)
        for task, head in fitted.items()
        if checked.count(task)
    }
    return Assessment(
        data=tuple(data),
        pictures=len(answers),
        results=head_results(answers, batch_size=batch_size),
        scores={task: _scores(answers, task) for task in tasks},
        slicings={task: found for task, (found, _) in slicings.items()},
        left_out={task: notes for task, (_, notes) in slicings.items()},
        calibration=checks,
        calibrated_on_part=on_part,
        notes=notes,
    )


def _scores(answers: Answers, task: str) -> HeadScores:
    logits, labels = answers.labelled(task)
    return head_scores(logits, labels, answers.units[answers.labels[task] >= 0], answers.classes[task])


@dataclass(frozen=True)
class RunAssessment:
    """An evaluation of a run, and what it was made from.

    Attributes:
      found: the run, the pictures and the answers.
      calibration: what `predict` applies; None where the run has none.
      likeness: likewise.
      assessment: the evaluation.
    """

    found: RunAnswers
    calibration: Calibration | None
    likeness: Likeness | None
    assessment: Assessment


def assess_run(
    folder: Path,
    *,
    sources: Sequence[str] | None = None,
    data_dir: Path | None = None,
    batch_size: int | None = None,
    checkpoint: Which = "newest",
    error_rate: float = ERROR_RATE,
) -> RunAssessment:
    """Evaluates a run's checkpoint in full.

    On the run's own data this fits a new calibration on a part of the pictures. On other data it applies the run's.

    Args:
      folder: the run folder.
      sources: prepared data sets; the default is those that the run was trained on.
      data_dir: where they lie; the default is the run's.
      batch_size: pictures at a time; the default is the run's.
      checkpoint: `newest` or `best`; see `run_folder.open_run`.
      error_rate: share of wrong answers that the threshold for `unsure` is chosen for.

    Raises:
      UserError: see `answers_of_run` and `calibrate`.
    """
    if not 0 < error_rate <= 1:
        raise UserError(f"--error-rate must be more than 0 and at most 1, got {error_rate}")
    found = answers_of_run(folder, sources=sources, data_dir=data_dir, batch_size=batch_size, checkpoint=checkpoint)
    sources = None if sources is None else kinds.names(sources, "sources")
    own = sources is None or set(sources) == set(found.run.config.data.sources)
    names, run = tuple(sources or found.run.config.data.sources), found.run
    calibration: Calibration | None
    likeness: Likeness | None
    notes = found.notes
    if own:
        calibration = calibrate(found.answers, step=run.step, error_rate=error_rate)
        likeness, failed = likeness_of(found.answers, found.examples, run.model, run.spec, run.step, names)
        notes += failed
    else:
        calibration = Calibration.read(folder, step=run.step, tasks=run.spec.classes)
        likeness = Likeness.read(folder, step=run.step, tasks=run.spec.classes)
    assessment = assess(
        found.answers,
        calibration,
        data=names,
        batch_size=found.batch_size,
        on_part=own,
        likeness=likeness,
        notes=notes,
    )
    return RunAssessment(found, calibration, likeness, assessment)


def likeness_of(
    answers: Answers, examples: Examples, model: MultiTaskModel, spec: ModelSpec, step: int, sources: Sequence[str]
) -> tuple[Likeness | None, tuple[str, ...]]:
    """Returns what `fit_likeness` does, or, where the pictures can't be read again for it, None and a line about it."""
    try:
        drawn = all(map(is_drawn, sources))
        return fit_likeness(answers, examples, features_of(model, spec), spec, step=step, drawn=drawn), ()
    except UserError as error:
        return None, (f"what the training pictures are like was not measured: {error}",)


def evaluation_folder(run: Path, data: Iterable[str], own: Iterable[str]) -> Path:
    """Returns where an evaluation of a run is kept: that on its own data in `evaluation/`, others beside it."""
    names = sorted(data)
    return run / EVALUATION if names == sorted(own) else run / f"{EVALUATION}-{'-'.join(names)}"


def write_assessment(folder: Path, assessment: Assessment, answers: Answers) -> Path:
    """Writes an evaluation as `evaluation.json`, and as tables for spreadsheets; returns the folder.

    Raises:
      UserError: a file can't be written.
    """
    write_json(folder / ASSESSMENT, assessment.to_json())
    write_file(folder / "heads.csv", assessment.heads_csv().encode())
    write_file(folder / "slices.csv", assessment.slices_csv().encode())
    write_file(folder / "predictions.csv", answers.to_csv().encode())
    return folder


def largest_gaps(slicings: Mapping[str, Sequence[Slicing]]) -> list[Slicing]:
    """Returns, for each head, the slicing whose gap exceeds chance the most; heads without such a gap are left out.

    Crossings don't count: there are so many that some exceed chance by accident.
    """
    found = []
    for of_head in slicings.values():
        telling = [slicing for slicing in of_head if slicing.exceeds_chance and "×" not in slicing.by]
        if telling:
            found.append(max(telling, key=lambda slicing: slicing.beyond_chance))
    return found


def largest_coverage_gaps(slicings: Mapping[str, Sequence[Slicing]]) -> dict[str, tuple[str, Gap]]:
    """Returns for each head the kind of known groups whose coverage differs the most by chance's measure, and the gap.

    Crossings don't count; heads whose groups can't be compared are left out.
    """
    found = {}
    for task, of_head in slicings.items():
        gaps = [(one.by, one.coverage) for one in of_head if one.coverage and not one.predicted and "×" not in one.by]
        if gaps:
            found[task] = max(gaps, key=lambda named: named[1].beyond_chance)
    return found


def _coverage_cells(coverage: GroupCoverage | None) -> list[str]:
    if coverage is None:
        return [""] * 7
    ends = coverage.accuracy_interval or (None, None)
    answered = [_cell(value) for value in (coverage.accuracy, *ends)]
    return [*map(_cell, (coverage.share, *coverage.interval)), str(coverage.n), *answered]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
