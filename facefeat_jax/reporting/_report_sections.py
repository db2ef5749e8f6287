"""The evaluation part of the report: one function per section, from an `Assessment` to template values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facefeat_jax.data.examples import UNKNOWN
from facefeat_jax.evaluation._bootstrap import Interval
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.assessment import Assessment, CalibrationCheck, largest_coverage_gaps, largest_gaps
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.evaluation.scores import METRICS, HeadScores
from facefeat_jax.evaluation.slices import LEAST, Slice, Slicing
from facefeat_jax.reporting._diagrams import coverage_svg, reliability_svg, worth_drawing
from facefeat_jax.reporting.table import coverage_gap_text, gap_figures
from facefeat_jax.system.text import (
    as_written,
    count,
    decimals_apart,
    format_accuracy,
    format_area,
    format_distinct,
    format_given,
    format_loss,
)

SHOWN_EACH = 6
"""Number of right, and of wrong, pictures to show for each head."""

_CROSSINGS = 2  # of each head; all of them are in slices.csv
_TELLING = 6  # kinds of groups that are not folded
_FORMATS: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy"), format_accuracy),
    **dict.fromkeys(("auroc", "average_precision"), format_area),
    **dict.fromkeys(("loss", "brier", "ece"), format_loss),
}


@dataclass(frozen=True)
class ExamplePicture:
    """A picture on which a head was right or wrong."""

    head: str  # the head
    right: bool  # whether the head was right
    index: int  # index of the picture in the answers
    label: str  # label of the picture
    answer: str  # class that the head predicts
    probability: float  # probability of that class
    image: np.ndarray | None = None  # the picture as the model sees it, uint8 `[size, size, 3]`; None until it is read
    overlay: np.ndarray | None = None  # the same with the Grad-CAM map on it, uint8 `[height, width, 3]`


def choose_examples(answers: Answers, count: int = SHOWN_EACH) -> list[ExamplePicture]:
    """Chooses pictures to show for each head: the mistakes with the highest loss, and a sample of right answers.

    Their images are not read yet.
    """
    chosen = []
    for task, names in answers.classes.items():
        rows = np.flatnonzero(answers.labels[task] != UNKNOWN)
        if not len(rows):
            continue
        logits, labels = answers.logits[task][rows], answers.labels[task][rows]
        answer, probability = predicted(logits), probabilities(logits).max(axis=1)
        loss = losses(logits, labels)
        wrong = np.flatnonzero(answer != labels)
        wrong = wrong[np.argsort(-loss[wrong], kind="stable")][:count]
        right = np.flatnonzero(answer == labels)
        right = right[np.linspace(0, len(right) - 1, min(count, len(right))).astype(int)] if len(right) else right
        for is_right, places in ((False, wrong), (True, right)):
            chosen += [
                ExamplePicture(
                    task, is_right, int(rows[at]), names[labels[at]], names[answer[at]], float(probability[at])
                )
                for at in places.tolist()
            ]
    return chosen


def evaluation_context(
    assessment: Assessment, shown: Sequence[ExamplePicture], series: Mapping[str, int], inlined: Any
) -> dict[str, Any]:
    """Returns the values of the template for an evaluation.

    Args:
      assessment: the evaluation.
      shown: pictures with images; may be empty.
      series: colour index of each head.
      inlined: turns a picture into a data URI.
    """
    scale = _calibration_scale(assessment)
    return {
        "verdicts": [_verdict(task, assessment, series) for task in assessment.scores],
        "data": ", ".join(assessment.data),
        "pictures": count(assessment.pictures, "validation picture"),
        "data_notes": assessment.notes,
        "on_part": assessment.calibrated_on_part,
        "least": LEAST,
        "figures": list(METRICS.values()),
        "scores": [_scores(task, score, series) for task, score in assessment.scores.items()],
        "by_person": any(score.units != score.n for score in assessment.scores.values()),
        "notes": [(task, note) for task, score in assessment.scores.items() for note in score.notes],
        "groups": _groups(assessment, series),
        "left_out": [(task, note) for task, notes in assessment.left_out.items() for note in notes],
        "confusion": [_confusion(task, score, series) for task, score in assessment.scores.items()],
        "calibration": [_calibration(task, check, series, scale) for task, check in assessment.calibration.items()],
        "shown": _shown(shown, assessment.scores, inlined),
        "any_wrong": any(not example.right for example in shown),
    }


def _verdict(task: str, assessment: Assessment, series: Mapping[str, int]) -> dict[str, Any]:
    """Returns what the first screen says of a head: how often it is right, how sure it is, on whom it fails."""
    scores = assessment.scores[task]
    accuracy, ends = scores.values["accuracy"] or 0.0, scores.intervals["accuracy"]
    name, always = scores.guess
    decimals = decimals_apart(accuracy, always)
    verdict = "Better than" if scores.is_better_than_guess else "Not clearly better than"
    lines = [
        f"{verdict} always answering {as_written(name)}, which is right on {format_accuracy(always, decimals)} of the "
        f"{count(scores.n, 'picture')}."
    ]
    if (check := assessment.calibration.get(task)) is not None:
        lines.append(_answered(check))
    gaps = {gap.head: gap for gap in largest_gaps(assessment.slicings)}
    if found := gaps.get(task):
        kind, points = _kind(found.by, found.head), gap_figures(found)[0]
        lines.append(
            f"Fails most by {kind}: {points} points lower on {as_written(found.lowest or '')} than on "
            f"{as_written(found.highest or '')}."
        )
    elif any(slicing.gap is not None for slicing in assessment.slicings[task]):
        lines.append("No gap between groups is larger than chance explains.")
    return {
        "head": as_written(task),
        "series": series.get(task, 0),
        "accuracy": format_accuracy(accuracy, decimals),
        "interval": _ends(ends, format_accuracy),
        "lines": lines,
    }


def _answered(check: CalibrationCheck) -> str:
    fitted = check.fitted
    if fitted.never_sure:
        return f"Always unsure: no threshold keeps {format_given(fitted.error_rate)} wrong answers."
    if check.coverage is None:
        return "Never unsure: it has no threshold."
    if check.accuracy is None:
        return "Unsure on all of the pictures that its threshold was measured on."
    right = format_accuracy(check.accuracy)
    if check.coverage == 1:
        return f"Never unsure on the pictures that its threshold was measured on, and right on {right} of them."
    return (
        f"Of the pictures that its threshold was measured on it answers {format_accuracy(check.coverage)}, {right} of "
        "them right; unsure of the rest."
    )


def _kind(by: str, head: str) -> str:
    return "its own label" if by == head else as_written(by)


def _scores(task: str, scores: HeadScores, series: Mapping[str, int]) -> dict[str, Any]:
    cells = []
    for name, form in _FORMATS.items():
        value, ends = scores.values[name], scores.intervals[name]
        cells.append({"value": "not defined" if value is None else form(value), "interval": _ends(ends, form)})
    units = count(scores.units, "person") if scores.units != scores.n else ""
    return {
        "name": as_written(task),
        "series": series.get(task, 0),
        "cells": cells,
        "n": f"{scores.n:,}",
        "units": units,
    }


def _ends(ends: Interval | None, form: Any) -> str:
    return "" if ends is None else f"{form(ends[0]).removesuffix('%')}\u2013{form(ends[1])}"


def _groups(assessment: Assessment, series: Mapping[str, int]) -> dict[str, Any]:
    """Returns the groups: those with the gaps farthest beyond chance, and the others, which are folded."""
    slicings = [slicing for of_head in assessment.slicings.values() for slicing in of_head]
    plain = [slicing for slicing in slicings if "×" not in slicing.by]
    shown = [*plain, *_telling_crossings(assessment)]
    beyond = sorted((one for one in plain if one.exceeds_chance), key=lambda slicing: -slicing.beyond_chance)
    telling = [slicing for slicing in plain if slicing in beyond[:_TELLING]]
    ends = [group.interval[0] for slicing in shown for group in _drawn(slicing) if group.interval]
    floor = min(math.floor(min(ends, default=0.0) * 10) / 10, 0.9)
    return {
        "any": bool(slicings),
        "all": len(slicings),
        "telling": [_slicing(slicing, series, floor) for slicing in telling],
        "telling_more": len(beyond) - len(telling),
        "others": [_slicing(slicing, series, floor) for slicing in shown if slicing not in telling],
        "coverage": [
            {
                "head": as_written(task),
                "series": series.get(task, 0),
                "by": _kind(by, task),
                "text": as_written(coverage_gap_text(gap)),
            }
            for task, (by, gap) in largest_coverage_gaps(assessment.slicings).items()
        ],
    }


def _telling_crossings(assessment: Assessment) -> list[Slicing]:
    found = []
    for of_head in assessment.slicings.values():
        crossings = [slicing for slicing in of_head if "×" in slicing.by and slicing.gap is not None]
        crossings.sort(key=lambda slicing: -slicing.beyond_chance)
        found += [slicing for slicing in crossings[:_CROSSINGS] if slicing.exceeds_chance]
    return found


def _drawn(slicing: Slicing) -> list[Slice]:
    # Crossings have many groups of a few pictures, and of none.
    return [group for group in slicing.slices if not ("×" in slicing.by and group.small)]


_LONG = 12  # letters of a word that may be broken: it would push the figures off a narrow page


def _slicing(slicing: Slicing, series: Mapping[str, int], floor: float) -> dict[str, Any]:
    shown = _drawn(slicing)
    hidden = len([group for group in slicing.slices if group.n]) - len([group for group in shown if group.n])
    notes = list(slicing.notes)
    if hidden:
        notes.append(f"not shown: {count(hidden, 'group')} of fewer than {LEAST} pictures")

    def place(share: float) -> float:
        return round(100 * (share - floor) / (1 - floor), 1)

    lines = []
    for group in shown:
        name, accuracy, ends = as_written(group.value), group.accuracy, group.interval
        line: dict[str, Any] = {"value": name, "n": f"{group.n:,}", "small": group.small, "bar": None}
        line |= {"coverage": "", "coverage_title": "", "is_long": any(len(word) > _LONG for word in name.split())}
        if group.coverage:
            of = count(group.coverage.n, "picture")
            line["coverage"] = format_accuracy(group.coverage.share, 0)
            line["coverage_title"] = f"{_ends(group.coverage.interval, format_accuracy)} of {of}"
        if accuracy is not None and ends is not None and group.confidence is not None:
            line["accuracy"] = format_accuracy(accuracy)
            line["interval"] = _ends(ends, format_accuracy)
            line["confidence"] = format_accuracy(group.confidence)
            line["bar"] = {"at": place(accuracy), "low": place(ends[0]), "high": place(ends[1])}
        lines.append(line)
    text = ""
    if slicing.gap is not None and slicing.gap_interval is not None and slicing.gap_by_chance is not None:
        gap, low_end, high_end, by_chance = gap_figures(slicing)
        verdict = "more than chance" if slicing.exceeds_chance else "no more than chance"
        text = as_written(
            f"{gap} points between {slicing.lowest} and {slicing.highest} ({low_end} to {high_end}); random groups of "
            f"these sizes differ by up to {by_chance}: {verdict}."
        )
    return {
        "head": as_written(slicing.head),
        "series": series.get(slicing.head, 0),
        "by": _kind(slicing.by, slicing.head),
        "has_coverage": any(group.coverage for group in shown),
        "predicted": slicing.predicted,
        "floor": f"{floor:.0%}",
        "lines": lines,
        "gap": text,
        "exceeds": slicing.exceeds_chance,
        "notes": notes,
    }


def _confusion(task: str, scores: HeadScores, series: Mapping[str, int]) -> dict[str, Any]:
    totals = scores.confusion.sum(axis=1)
    lines = []
    for number, name in enumerate(scores.classes):
        cells = []
        for answer, pictures in enumerate(scores.confusion[number].tolist()):
            share = pictures / totals[number] if totals[number] else 0.0
            low, high = scores.confusion_intervals[number, answer]
            title = f"{format_accuracy(low, 0)} to {format_accuracy(high, 0)}" if totals[number] else "no picture"
            shown = "" if not pictures else "<1%" if share < 0.005 else format_accuracy(share, 0)
            cells.append({"count": f"{pictures:,}", "share": round(share, 3), "shown": shown, "title": title})
        lines.append({"label": as_written(name), "cells": cells, "n": f"{int(totals[number]):,}"})
    names = [as_written(name) for name in scores.classes]
    return {"head": as_written(task), "series": series.get(task, 0), "classes": names, "lines": lines}


def _calibration_scale(assessment: Assessment) -> tuple[float, float]:
    """Returns where the axes of the calibration's figures begin, the same in all: of probability, and of accuracy."""
    checks = assessment.calibration.values()
    least = min([bin_.low for check in checks for bin_ in (*check.bins_before, *check.bins_after)], default=0.0)
    shares = [1 - check.fitted.error_rate for check in checks]
    shares += [point.accuracy for check in checks for point in worth_drawing(check)]
    return least, max(0.0, min(shares, default=1.0) - 0.05)


def _calibration(
    task: str, check: CalibrationCheck, series: Mapping[str, int], scale: tuple[float, float]
) -> dict[str, Any]:
    fitted, number, task = check.fitted, series.get(task, 0), as_written(task)
    rows = []
    for name in ("loss", "brier", "ece"):
        before, after = check.before.values[name] or 0.0, check.after.values[name] or 0.0
        ends = [_ends(scores.intervals[name], format_loss) for scores in (check.before, check.after)]
        texts = format_loss(before), format_loss(after)
        if texts[0] == texts[1]:
            texts = format_distinct(before, after)
        rows.append({"name": METRICS[name], "before": texts[0], "after": texts[1], "ends": ends})
    if fitted.never_sure:
        wanted = format_given(fitted.error_rate)
        answer = f"No threshold guarantees at most {wanted} wrong answers, so this head always answers unsure."
    elif fitted.threshold is None:
        answer = "There is no threshold, so this head never answers unsure."
    elif check.accuracy is None or check.interval is None:
        answer = f"The head answers unsure below a probability of {format_area(fitted.threshold)}: here always."
    else:
        below = f"answers unsure below a probability of {format_area(fitted.threshold)}"
        answer = (
            f"To give at most {format_given(fitted.error_rate)} wrong answers, the head "
            f"{below if fitted.threshold else 'needs no threshold'}. On the pictures here, "
            f"{format_accuracy(check.coverage or 0.0)} get an answer, and "
            f"{format_accuracy(check.accuracy)} of those are right ({_ends(check.interval, format_accuracy)})."
        )
    worst = max(check.bins_after, key=lambda slicing: abs(slicing.confidence - slicing.accuracy) * slicing.n)
    return {
        "head": task,
        "series": number,
        "temperature": f"{fitted.temperature:.3f}",
        "n_fitted": f"{fitted.n:,}",
        "n_reported": f"{check.before.n:,}",
        "rows": rows,
        "answer": answer,
        "notes": list(check.notes),
        "reliability": {
            "title": f"{task}: accuracy by probability",
            "alt": (
                f"Reliability diagram of {task}: accuracy by the probability of the answer, before and after "
                f"calibration. Farthest from the diagonal after it: answers of "
                f"{format_accuracy(worst.confidence, 0)} are right in {format_accuracy(worst.accuracy, 0)} of "
                f"{count(worst.n, 'picture')}."
            ),
            "svg": reliability_svg(check, number, least=scale[0]),
        },
        "coverage": {
            "title": f"{task}: accuracy by share",
            "alt": (
                f"Accuracy of {task} by the share of pictures that get an answer, most confident first: from "
                f"{format_accuracy(check.curve[0].accuracy)} at {format_accuracy(check.curve[0].coverage)} to "
                f"{format_accuracy(check.curve[-1].accuracy)} of all."
            ),
            "svg": coverage_svg(check, number, low=scale[1]),
        },
    }


def _shown(shown: Sequence[ExamplePicture], scores: Mapping[str, HeadScores], inlined: Any) -> list[dict[str, Any]]:
    found = []
    for task in scores:
        of_head = {}
        for is_right in (False, True):
            of_head["right" if is_right else "wrong"] = [
                {
                    "image": inlined(example.image, exact=True),
                    "overlay": inlined(example.overlay) if example.overlay is not None else None,
                    "label": as_written(example.label),
                    "answer": as_written(example.answer),
                    "probability": format_area(example.probability, 2),
                }
                for example in shown
                if example.head == task and example.right == is_right and example.image is not None
            ]
        if of_head["right"] or of_head["wrong"]:
            found.append({"head": as_written(task), **of_head})
    return found
