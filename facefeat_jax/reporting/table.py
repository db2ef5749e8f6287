"""The results table, as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facefeat_jax.evaluation.metrics import HeadResult
from facefeat_jax.system.text import (
    count,
    decimals_apart,
    format_accuracy,
    format_area,
    format_duration,
    format_loss,
    format_points,
    one_line,
)

if TYPE_CHECKING:
    from facefeat_jax.evaluation.assessment import Assessment
    from facefeat_jax.evaluation.audit import Audit
    from facefeat_jax.evaluation.scores import HeadScores
    from facefeat_jax.evaluation.slices import Compared, Gap

OWN_PASS = "right after own pass"
"""Title of the figures that a head had when its own last pass had just ended."""

WHY_THEY_DIFFER = (
    "The final weights are the saved ones. After a head's own last pass, the trunk continued to train for the other "
    "heads, and its BatchNorm statistics changed on their pictures. This changes the features that the head gets."
)


@dataclass(frozen=True)
class ResultRow:
    """A line of the results table."""

    head: str  # name of the head
    final: HeadResult  # its figures with the final weights
    own_pass: HeadResult | None  # its figures right after its own last pass; None where it was not validated on its own


def result_rows(results: Mapping[str, Any]) -> list[ResultRow]:
    """Returns the lines of the table from what a `results.json` holds.

    Raises:
      KeyError, TypeError, ValueError: it is not the content of such a file.
    """
    last = {entry["task"]: entry for entry in results["history"]}
    return [
        ResultRow(task, HeadResult.from_json(figures), HeadResult.from_json(last[task]) if task in last else None)
        for task, figures in results["heads"].items()
    ]


def results_table(results: Mapping[str, Any], sequential: bool) -> str:
    """Returns the results of a training as a table.

    Args:
      results: what `results.json` holds.
      sequential: whether the heads were trained one after the other; their figures right after their own last pass are
        then given beside those of the final weights.
    """
    rows = result_rows(results)
    if not sequential:
        return heads_table({row.head: row.final for row in rows})
    return _aligned(
        [
            ["", "final weights", "", OWN_PASS, "", ""],
            ["head", "accuracy", "loss", "accuracy", "loss", "pictures"],
            *([row.head, *_figures(row.final), *_figures(row.own_pass), f"{row.final.n:,}"] for row in rows),
        ],
        spans={1: 2, 3: 2},
    )


def guess_lines(scores: Mapping[str, HeadScores]) -> list[str]:
    """Returns a line for each head that may have learned nothing."""
    return [
        f"{task}: not clearly better than always answering {one.guess[0]}, which is right on "
        f"{format_accuracy(one.guess[1])}"
        for task, one in scores.items()
        if not one.is_better_than_guess
    ]


def timings_lines(results: Mapping[str, Any]) -> list[str]:
    """Returns how long a training took and where the time went, from what a `results.json` holds."""
    timings = results["timings"]
    parts = {
        "start": timings["start"],
        "pictures": timings["read"],
        "steps": timings["train"],
        "validation": timings["validate"],
    }
    listed = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in parts.items())
    waited = f"{timings['compile_wait']:.0f} s of it compiling"
    return [f"trained in {format_duration(results['seconds'])}:", f"{listed}; {waited}"]


def heads_table(heads: Mapping[str, HeadResult]) -> str:
    """Returns the figures of heads as a table: accuracy, loss (mean over pictures) and number of pictures."""
    return _aligned(
        [
            ["head", "accuracy", "loss", "pictures"],
            *([head, *_figures(result), f"{result.n:,}"] for head, result in heads.items()),
        ]
    )


def scores_table(scores: Mapping[str, HeadScores]) -> str:
    """Returns the figures of heads in full as a table, the accuracy with its 95% interval; `-`: not defined."""
    header = ["head", "accuracy", "95% interval", "balanced", "AUROC", "AP", "loss", "Brier", "ECE", "pictures"]
    rows = []
    for head, score in scores.items():
        values = score.values
        low, high = score.intervals["accuracy"] or (0.0, 1.0)
        shares = [format_accuracy(values["accuracy"] or 0.0), f"{format_accuracy(low)} to {format_accuracy(high)}"]
        shares.append(format_accuracy(values["balanced_accuracy"] or 0.0))
        areas = [format_area(values[name]) for name in ("auroc", "average_precision")]
        errors = [format_loss(values[name] or 0.0) for name in ("loss", "brier", "ece")]
        rows.append([head, *shares, *areas, *errors, f"{score.n:,}"])
    return _aligned([header, *rows])


def gap_lines(assessment: Assessment) -> list[str]:
    """Returns a line for each head: its largest gap between groups, beyond what chance makes; and its notes."""
    from facefeat_jax.evaluation.assessment import largest_coverage_gaps, largest_gaps

    coverage_gaps = largest_coverage_gaps(assessment.slicings)
    gaps = {gap_slicing.head: gap_slicing for gap_slicing in largest_gaps(assessment.slicings)}
    lines = guess_lines(assessment.scores)
    for task, scores in assessment.scores.items():
        if found := gaps.get(task):
            gap, low, high, by_chance = gap_figures(found)
            lines.append(
                f"{task}: largest gap by {found.by}: {gap} points ({low} to {high}) from {found.lowest} to "
                f"{found.highest}; chance alone: up to {by_chance}"
            )
        elif assessment.slicings[task]:
            lines.append(f"{task}: no gap between groups is larger than chance explains")
        if task in coverage_gaps and coverage_gaps[task][1].exceeds_chance:
            by, coverage_gap = coverage_gaps[task]
            lines.append(f"{task}: by {by}, {coverage_gap_text(coverage_gap)}")
        lines += [f"{task}: {note}" for note in scores.notes]
        if (check := assessment.calibration.get(task)) is not None:
            lines += [f"{task}: {note}" for note in check.notes]
    return lines


def coverage_gap_text(gap: Gap) -> str:
    """Returns how far the coverage of groups differs, and whether chance alone would explain it."""
    points, low, high, by_chance = gap_figures(gap)
    verdict = "more than chance" if gap.exceeds_chance else "no more than chance"
    return (
        f"{points} points fewer pictures of {gap.lowest} than of {gap.highest} get an answer ({low} to {high}); random "
        f"groups of these sizes differ by up to {by_chance}: {verdict}"
    )


def gap_figures(gap_slicing: Compared) -> tuple[str, str, str, str]:
    """Returns a gap, the ends of its interval, and what chance makes, in points."""
    gap, by_chance = gap_slicing.gap or 0.0, gap_slicing.gap_by_chance or 0.0
    ends = gap_slicing.gap_interval or (0.0, 0.0)
    decimals = decimals_apart(gap, by_chance)
    gap_text, low, high, chance = (format_points(value, decimals) for value in (gap, *ends, by_chance))
    return gap_text, low, high, chance


def audit_lines(made: Audit) -> list[str]:
    """Returns what an audit found, a line each."""
    counts = made.counts()
    lines = []
    for kind, name in (("file", "the same file"), ("pixels", "the same pixels"), ("near", "nearly the same")):
        lines.append(
            f"pairs that are {name}: {counts[kind]:,} ({counts[f'{kind}_across']:,} across train and val, "
            f"{counts[f'{kind}_conflicting']:,} with different labels)"
        )
    if made.persons_across is not None:
        persons, pictures = made.persons_across
        lines.append(
            f"persons in both train and val: {persons:,}; they appear in {count(pictures, 'validation picture')}"
        )
    for head, of_head in made.suspects.items():
        for split, found in of_head.items():
            first = f"; most confident: {found[0].file}" if found else ""
            lines.append(f"{head}, {split}: {count(len(found), 'label')} contradicted{first}")
    for link in made.links[:3]:
        lines.append(f"{link.first} goes with {link.second}: Cram\u00e9r's V {link.strength:.2f}")
    return lines


def _figures(result: HeadResult | None) -> list[str]:
    return ["", ""] if result is None else [format_accuracy(result.accuracy), format_loss(result.loss)]


def _aligned(rows: Sequence[Sequence[str]], spans: Mapping[int, int] | None = None) -> str:
    """Returns rows of cells as lines: the first column to the left, all others to the right, a rule under the heading.

    Args:
      rows: rows of cells, including the heading.
      spans: in the first row, over how many columns the cell of that number goes.
    """
    gap = "   "
    spans = spans or {}
    rows = [list(map(one_line, row)) for row in rows]
    body = rows[1:] if spans else rows
    widths = [max(len(row[column]) for row in body) for column in range(len(rows[0]))]
    for start, span in spans.items():
        missing = len(rows[0][start]) - sum(widths[start : start + span]) - len(gap) * (span - 1)
        widths[start] += max(missing, 0)
    lines = []
    if spans:
        cells, column = [], 0
        while column < len(widths):
            span = spans.get(column, 1)
            width = sum(widths[column : column + span]) + len(gap) * (span - 1)
            cells.append(rows[0][column].rjust(width))
            column += span
        lines.append(gap.join(cells))
    for row in body:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(gap.join(cells))
    rule = "-" * (sum(widths) + len(gap) * (len(widths) - 1))
    heading = 2 if spans else 1
    return "\n".join(line.rstrip() for line in [*lines[:heading], rule, *lines[heading:]])
