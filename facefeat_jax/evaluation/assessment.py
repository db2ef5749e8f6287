"""The whole evaluation of a run: figures with intervals, slices by group, calibration; written as JSON and CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefeat_jax.evaluation._bootstrap import Interval, mean_interval, resampled_shares, share_interval
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import (
    ERROR_RATE,
    Bin,
    Calibration,
    Coverage,
    HeadCalibration,
    calibrate,
    coverage_curve,
    fitting_part,
    reliability,
)
from facefeat_jax.evaluation.evaluate import RunAnswers, answers_of_run, head_results
from facefeat_jax.evaluation.metrics import HeadResult, losses, predicted, probabilities
from facefeat_jax.evaluation.scores import HeadScores, head_scores
from facefeat_jax.evaluation.slices import Slicing, slice_head
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import EVALUATION, write_file, write_json
from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.figures import format_distinct
from facefeat_jax.system.tables import csv_table

ASSESSMENT = "evaluation.json"
HEADS_CSV, SLICES_CSV, PREDICTIONS_CSV = "heads.csv", "slices.csv", "predictions.csv"


@dataclass(frozen=True)
class CalibrationCheck:
    """The effect of a head's calibration on pictures that it was not fitted on.

    Attributes:
      fitted: temperature and threshold.
      before: metrics before calibration.
      after: metrics with the temperature.
      bins_before: bins of the reliability diagram before calibration.
      bins_after: the same with the temperature.
      curve: accuracy of the answers by the share of pictures that get one.
      coverage: the share that gets one at the threshold; None where there is none.
      accuracy: accuracy of those answers; None where there are none.
      interval: its 95% interval.
      loss_change: change of the mean loss by the temperature; 0 without one.
      loss_change_interval: its 95% interval, of the same pictures before and after; None where there is no temperature.
    """

    fitted: HeadCalibration
    before: HeadScores
    after: HeadScores
    bins_before: list[Bin]
    bins_after: list[Bin]
    curve: list[Coverage]
    coverage: float | None
    accuracy: float | None
    interval: Interval | None
    loss_change: float
    loss_change_interval: Interval | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known of the calibration, among it that the temperature makes the loss worse."""
        if self.loss_change <= 0 or self.loss_change_interval is None:
            return self.fitted.notes
        low, high = self.loss_change_interval
        before, after = format_distinct(self.before.values["loss"] or 0.0, self.after.values["loss"] or 0.0)
        worse = (
            f"the temperature makes the loss worse on pictures that it was not fitted on: {before} to "
            f"{after}, by {self.loss_change:.2g} (95% interval of the difference {low:.2g} to {high:.2g})"
        )
        return (*self.fitted.notes, worse)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values; of `before` and `after` what a temperature changes."""
        figures = {}
        for when, scores in (("before", self.before), ("after", self.after)):
            full = scores.to_json()
            names = ("loss", "brier", "ece")
            figures[when] = {name: full[name] for name in names}
            figures[when]["intervals"] = {name: full["intervals"][name] for name in names}
        return {
            **dataclasses.asdict(self.fitted),
            "n_reported": self.before.n,
            **figures,
            "bins_before": [dataclasses.asdict(bin_) for bin_ in self.bins_before],
            "bins_after": [dataclasses.asdict(bin_) for bin_ in self.bins_after],
            "curve": [dataclasses.asdict(point) for point in self.curve],
            "coverage": self.coverage,
            "accuracy_of_answers": self.accuracy,
            "interval_of_answers": list(self.interval) if self.interval else None,
            "loss_change": self.loss_change,
            "interval_of_loss_change": list(self.loss_change_interval) if self.loss_change_interval else None,
            "notes": list(self.notes),
        }


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
        rows = []
        for task, slicings in self.slicings.items():
            for slicing in slicings:
                for group in slicing.slices:
                    low, high = group.interval or (None, None)
                    figures = (group.accuracy, low, high, group.balanced_accuracy, group.loss, group.confidence)
                    flags = ("yes" if slicing.predicted else "no", "yes" if group.small else "no")
                    rows.append([task, slicing.by, flags[0], group.value, group.n, *map(_cell, figures), flags[1]])
        return csv_table(header, rows)


def assess(
    answers: Answers,
    calibration: Calibration | None,
    *,
    data: Sequence[str],
    batch_size: int,
    on_part: bool,
    crossings: bool = True,
) -> Assessment:
    """Evaluates answers.

    Args:
      answers: answers of all heads, as the model gives them.
      calibration: calibration of the run, or None.
      data: names of the data sets, for the report.
      batch_size: for `HeadResult.loss_of_batches`.
      on_part: whether the calibration was fitted on `fitting_part` of these pictures: it is then checked on the rest.
      crossings: whether to slice by each two kinds of groups together as well.
    """
    tasks = [task for task in answers.classes if answers.count(task)]
    slicings = {task: slice_head(answers, task, crossings=crossings) for task in tasks}
    checked = answers.select(~fitting_part(answers.units)) if on_part else answers
    fitted = {} if calibration is None else {task: calibration.heads.get(task, HeadCalibration()) for task in tasks}
    checks = {task: _check(checked, task, head) for task, head in fitted.items() if checked.count(task)}
    return Assessment(
        data=tuple(data),
        pictures=len(answers),
        results=head_results(answers, batch_size=batch_size),
        scores={task: _scores(answers, task) for task in tasks},
        slicings={task: found for task, (found, _) in slicings.items()},
        left_out={task: notes for task, (_, notes) in slicings.items()},
        calibration=checks,
        calibrated_on_part=on_part,
    )


def _scores(answers: Answers, task: str) -> HeadScores:
    logits, labels = answers.labelled(task)
    return head_scores(logits, labels, answers.units[answers.labels[task] >= 0], answers.classes[task])


def _check(answers: Answers, task: str, fitted: HeadCalibration) -> CalibrationCheck:
    logits, labels = answers.labelled(task)
    units = answers.units[answers.labels[task] >= 0]
    classes = answers.classes[task]
    scaled = logits / fitted.temperature
    before, after = (head_scores(values, labels, units, classes) for values in (logits, scaled))
    probability = probabilities(scaled)
    confidence, right = probability.max(axis=1), predicted(logits) == labels
    changes = losses(scaled, labels) - losses(logits, labels)
    coverage = accuracy = interval = None
    if fitted.threshold is not None or fitted.never_sure:
        answered = ~fitted.unsure(confidence)
        coverage = float(answered.mean())
        if answered.any():
            accuracy = float(right[answered].mean())
            shares, count = resampled_shares(right[answered], units[answered])
            interval = share_interval(shares, accuracy, count)
    return CalibrationCheck(
        fitted,
        before,
        after,
        reliability(probabilities(logits), labels),
        reliability(probability, labels),
        coverage_curve(confidence, right),
        coverage,
        accuracy,
        interval,
        float(changes.mean()),
        mean_interval(changes, units) if fitted.temperature != 1 else None,
    )


@dataclass(frozen=True)
class RunAssessment:
    """An evaluation of a run, and what it was made of.

    Attributes:
      found: the run, the pictures and the answers.
      calibration: what `predict` applies; None where the run has none.
      assessment: the evaluation.
    """

    found: RunAnswers
    calibration: Calibration | None
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
    if own:
        calibration: Calibration | None = calibrate(found.answers, step=found.run.step, error_rate=error_rate)
    else:
        calibration = Calibration.read(folder, step=found.run.step, tasks=found.run.spec.classes)
    names = tuple(sources or found.run.config.data.sources)
    assessment = assess(found.answers, calibration, data=names, batch_size=found.batch_size, on_part=own)
    return RunAssessment(found, calibration, dataclasses.replace(assessment, notes=found.notes))


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
    for name, text in (
        (HEADS_CSV, assessment.heads_csv()),
        (SLICES_CSV, assessment.slices_csv()),
        (PREDICTIONS_CSV, answers.to_csv()),
    ):
        write_file(folder / name, text.encode())
    return folder


def largest_gaps(slicings: Mapping[str, Sequence[Slicing]]) -> list[Slicing]:
    """Returns, of each head, the slicing by one kind of groups whose gap exceeds chance the most.

    It ignores crossings: there are so many that some exceed chance by accident. Heads without such a gap are left out.
    """
    found = []
    for of_head in slicings.values():
        telling = [slicing for slicing in of_head if slicing.exceeds_chance and "×" not in slicing.by]
        if telling:
            found.append(max(telling, key=lambda slicing: slicing.beyond_chance))
    return found


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
