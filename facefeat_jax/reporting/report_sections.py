"""What the report says of an evaluation: a function for each section, from an `Assessment` to what is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facefeat_jax.data.examples import UNKNOWN
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.assessment import Assessment, CalibrationCheck
from facefeat_jax.evaluation.bootstrap import Interval
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.evaluation.scores import METRICS, HeadScores
from facefeat_jax.evaluation.slices import LEAST, Slicing
from facefeat_jax.reporting.diagrams import coverage_svg, reliability_svg
from facefeat_jax.reporting.table import gap_figures
from facefeat_jax.system.figures import count, format_accuracy, format_area, format_given, format_loss

SHOWN_EACH = 6
"""Pictures that are shown right, and wrong, of each head."""

_CROSSINGS = 2  # of each head; all of them are in slices.csv
_FORMATS: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy"), format_accuracy),
    **dict.fromkeys(("auroc", "average_precision"), format_area),
    **dict.fromkeys(("loss", "brier", "ece"), format_loss),
}


@dataclass(frozen=True)
class Shown:
    """A picture on which a head was right or wrong.

    Attributes:
      head: the head.
      right: whether it was right.
      index: the picture's number among the answers.
      label: its label.
      answer: what the head says.
      probability: of that.
      image: as the model gets it, uint8 `[size, size, 3]`; None until it is read.
      overlay: the same with what speaks for the answer, uint8 `[height, width, 3]`.
    """

    head: str
    right: bool
    index: int
    label: str
    answer: str
    probability: float
    image: np.ndarray | None = None
    overlay: np.ndarray | None = None


def choose_shown(answers: Answers, count: int = SHOWN_EACH) -> list[Shown]:
    """Chooses pictures to show of each head: the mistakes with the highest loss, and right ones spread over all.

    They have no image yet.
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
                Shown(task, is_right, int(rows[at]), names[labels[at]], names[answer[at]], float(probability[at]))
                for at in places.tolist()
            ]
    return chosen


def evaluation_context(
    assessment: Assessment, shown: Sequence[Shown], series: Mapping[str, int], inlined: Any
) -> dict[str, Any]:
    """Returns all that the template shows of an evaluation.

    Args:
      assessment: the evaluation.
      shown: pictures with images, or none.
      series: number of the colour of each head.
      inlined: makes a data URI of a picture.
    """
    slicings = [one for of_head in assessment.slicings.values() for one in of_head]
    plain = [one for one in slicings if "×" not in one.by]
    return {
        "data": ", ".join(assessment.data),
        "pictures": count(assessment.pictures, "validation picture"),
        "data_notes": assessment.notes,
        "on_part": assessment.calibrated_on_part,
        "figures": list(METRICS.values()),
        "scores": [_scores(task, one, series) for task, one in assessment.scores.items()],
        "by_person": any(one.units != one.n for one in assessment.scores.values()),
        "notes": [(task, note) for task, one in assessment.scores.items() for note in one.notes],
        "groups": [_slicing(one, series) for one in plain],
        "crossings": [_slicing(one, series) for one in _telling_crossings(assessment)],
        "all_slicings": len(slicings),
        "left_out": [(task, note) for task, notes in assessment.left_out.items() for note in notes],
        "confusion": [_confusion(task, one, series) for task, one in assessment.scores.items()],
        "calibration": [_calibration(task, one, series) for task, one in assessment.calibration.items()],
        "shown": _shown(shown, assessment.scores, inlined),
    }


def _scores(task: str, scores: HeadScores, series: Mapping[str, int]) -> dict[str, Any]:
    cells = []
    for name, form in _FORMATS.items():
        value, ends = scores.values[name], scores.intervals[name]
        cells.append({"value": "not defined" if value is None else form(value), "interval": _ends(ends, form)})
    units = count(scores.units, "person") if scores.units != scores.n else ""
    return {"name": task, "series": series.get(task, 0), "cells": cells, "n": f"{scores.n:,}", "units": units}


def _ends(ends: Interval | None, form: Any) -> str:
    return "" if ends is None else f"{form(ends[0]).removesuffix('%')}\u2013{form(ends[1])}"


def _telling_crossings(assessment: Assessment) -> list[Slicing]:
    found = []
    for of_head in assessment.slicings.values():
        crossings = [one for one in of_head if "×" in one.by and one.gap is not None]
        crossings.sort(key=lambda one: -one.beyond_chance)
        found += [one for one in crossings[:_CROSSINGS] if one.exceeds_chance]
    return found


def _slicing(slicing: Slicing, series: Mapping[str, int]) -> dict[str, Any]:
    # Crossings have many groups of a few pictures, and of none.
    shown = [one for one in slicing.slices if not ("×" in slicing.by and one.small)]
    hidden = len([one for one in slicing.slices if one.n]) - len([one for one in shown if one.n])
    notes = list(slicing.notes)
    if hidden:
        notes.append(f"groups of fewer than {LEAST} pictures that are not shown: {hidden}")
    low = min([one.interval[0] for one in shown if one.interval] or [0.0])
    floor = min(math.floor(low * 10) / 10, 0.9)

    def place(share: float) -> float:
        return round(100 * (share - floor) / (1 - floor), 1)

    lines = []
    for one in shown:
        name = one.value.replace("_", " ")
        line: dict[str, Any] = {"value": name, "n": f"{one.n:,}", "small": one.small, "bar": None}
        if one.accuracy is not None and one.interval is not None and one.confidence is not None:
            line["accuracy"] = format_accuracy(one.accuracy)
            line["interval"] = _ends(one.interval, format_accuracy)
            line["confidence"] = format_accuracy(one.confidence)
            line["bar"] = {"at": place(one.accuracy), "low": place(one.interval[0]), "high": place(one.interval[1])}
        lines.append(line)
    told = ""
    if slicing.gap is not None and slicing.gap_interval is not None and slicing.gap_by_chance is not None:
        gap, low_end, high_end, by_chance = gap_figures(slicing)
        verdict = "more than chance" if slicing.exceeds_chance else "no more than chance"
        told = (
            f"{gap} points between {slicing.lowest} and {slicing.highest} ({low_end} to {high_end}); groups of these "
            f"sizes, dealt out at random, differ by up to {by_chance}: {verdict}."
        ).replace("_", " ")
    return {
        "head": slicing.head,
        "series": series.get(slicing.head, 0),
        "by": "its own label" if slicing.by == slicing.head else slicing.by,
        "predicted": slicing.predicted,
        "floor": f"{floor:.0%}",
        "lines": lines,
        "gap": told,
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
        lines.append({"label": name.replace("_", " "), "cells": cells, "n": f"{int(totals[number]):,}"})
    names = [name.replace("_", " ") for name in scores.classes]
    return {"head": task, "series": series.get(task, 0), "classes": names, "lines": lines}


def _calibration(task: str, check: CalibrationCheck, series: Mapping[str, int]) -> dict[str, Any]:
    fitted, number = check.fitted, series.get(task, 0)
    rows = []
    for name in ("loss", "brier", "ece"):
        before, after = check.before.values[name] or 0.0, check.after.values[name] or 0.0
        ends = [_ends(scores.intervals[name], format_loss) for scores in (check.before, check.after)]
        rows.append({"name": METRICS[name], "before": format_loss(before), "after": format_loss(after), "ends": ends})
    if fitted.never_sure:
        wanted = format_given(fitted.error_rate)
        answer = f"No threshold keeps to {wanted} wrong answers: predictions of this head say unsure."
    elif fitted.threshold is None:
        answer = "There is no threshold: predictions of this head never say unsure."
    elif check.accuracy is None or check.interval is None:
        answer = f"Below a probability of {format_area(fitted.threshold)}, predictions say unsure: here all of them."
    else:
        below = f"say unsure below a probability of {format_area(fitted.threshold)}"
        answer = (
            f"For at most {format_given(fitted.error_rate)} wrong answers, predictions "
            f"{below if fitted.threshold else 'need no threshold'}. On the pictures here, "
            f"{format_accuracy(check.coverage or 0.0)} get an answer, and "
            f"{format_accuracy(check.accuracy)} of those are right ({_ends(check.interval, format_accuracy)})."
        )
    worst = max(check.bins_after, key=lambda one: abs(one.confidence - one.accuracy) * one.n)
    return {
        "head": task,
        "series": number,
        "temperature": f"{fitted.temperature:.3f}",
        "n_fitted": f"{fitted.n:,}",
        "n_reported": f"{check.before.n:,}",
        "rows": rows,
        "answer": answer,
        "notes": list(check.notes),
        "figures": [
            {
                "title": f"{task}: how often it is right",
                "alt": (
                    f"Reliability diagram of {task}: accuracy by the probability of the answer, before and after the "
                    f"temperature. Farthest from the diagonal after it: answers of "
                    f"{format_accuracy(worst.confidence, 0)} are right in {format_accuracy(worst.accuracy, 0)} of "
                    f"{count(worst.n, 'picture')}."
                ),
                "svg": reliability_svg(check, number),
            },
            {
                "title": f"{task}: accuracy of the answers",
                "alt": (
                    f"Accuracy of {task} by the share of pictures that get an answer, the surest first: from "
                    f"{format_accuracy(check.curve[0].accuracy)} at {format_accuracy(check.curve[0].coverage)} to "
                    f"{format_accuracy(check.curve[-1].accuracy)} of all."
                ),
                "svg": coverage_svg(check, number),
            },
        ],
    }


def _shown(shown: Sequence[Shown], scores: Mapping[str, HeadScores], inlined: Any) -> list[dict[str, Any]]:
    found = []
    for task in scores:
        of_head = {}
        for is_right in (False, True):
            of_head["right" if is_right else "wrong"] = [
                {
                    "image": inlined(one.image, exact=True),
                    "overlay": inlined(one.overlay) if one.overlay is not None else None,
                    "label": one.label.replace("_", " "),
                    "answer": one.answer.replace("_", " "),
                    "probability": format_area(one.probability, 2),
                }
                for one in shown
                if one.head == task and one.right == is_right and one.image is not None
            ]
        if of_head["right"] or of_head["wrong"]:
            found.append({"head": task, **of_head})
    return found
