"""The results table, as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facefeat_jax.evaluation.metrics import HeadResult

if TYPE_CHECKING:
    from facefeat_jax.evaluation.assessment import Assessment
    from facefeat_jax.evaluation.audit import Audit
    from facefeat_jax.evaluation.scores import HeadScores

OWN_PASS = "right after own pass"
"""Title of the figures that a head had when its own last pass had just ended."""

WHY_THEY_DIFFER = (
    "The final weights are those that are saved. After a head's own last pass the trunk went on to train for the heads "
    "that follow, and its BatchNorm statistics moved to their pictures, which changes what this head sees."
)


@dataclass(frozen=True)
class ResultRow:
    """A line of the results table.

    Attributes:
      head: name of the head.
      final: its figures with the final weights.
      own_pass: its figures right after its own last pass; None where it was not validated on its own.
    """

    head: str
    final: HeadResult
    own_pass: HeadResult | None


def result_rows(results: Mapping[str, Any]) -> list[ResultRow]:
    """Returns the lines of the table from what a `results.json` holds.

    Raises:
      KeyError, TypeError: it is not one.
    """
    last = {entry["task"]: entry for entry in results["history"]}
    return [
        ResultRow(task, _head_result(figures), _head_result(last[task]) if task in last else None)
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
    for head, one in scores.items():
        values = one.values
        low, high = one.intervals["accuracy"] or (0.0, 1.0)
        shares = [format_accuracy(values["accuracy"] or 0.0), f"{format_accuracy(low)} to {format_accuracy(high)}"]
        shares.append(format_accuracy(values["balanced_accuracy"] or 0.0))
        areas = [format_area(values[name]) for name in ("auroc", "average_precision")]
        errors = [format_loss(values[name] or 0.0) for name in ("loss", "brier", "ece")]
        rows.append([head, *shares, *areas, *errors, f"{one.n:,}"])
    return _aligned([header, *rows])


def gaps_told(assessment: Assessment) -> list[str]:
    """Returns a line for each head: its largest gap between groups, beyond what chance makes; and its notes."""
    from facefeat_jax.evaluation.assessment import largest_gaps

    gaps = {one.head: one for one in largest_gaps(assessment.slicings)}
    told = []
    for task, scores in assessment.scores.items():
        if one := gaps.get(task):
            low, high = one.gap_interval or (0.0, 0.0)
            told.append(
                f"{task}: largest gap by {one.by}: {100 * (one.gap or 0):.1f} points ({100 * low:.1f} to "
                f"{100 * high:.1f}) from {one.lowest} to {one.highest}; chance alone: up to "
                f"{100 * (one.gap_by_chance or 0):.1f}"
            )
        elif assessment.slicings[task]:
            told.append(f"{task}: no gap between groups is larger than chance makes it")
        told += [f"{task}: {note}" for note in scores.notes]
        if (check := assessment.calibration.get(task)) is not None:
            told += [f"{task}: {note}" for note in check.fitted.notes]
    return told


def audit_told(made: Audit) -> list[str]:
    """Returns what an audit found, a line each."""
    counts = made.counts()
    told = []
    for kind, name in (("file", "the same file"), ("pixels", "the same pixels"), ("near", "nearly the same")):
        told.append(
            f"pairs that are {name}: {counts[kind]:,} ({counts[f'{kind}_across']:,} across train and val, "
            f"{counts[f'{kind}_conflicting']:,} with different labels)"
        )
    if made.persons_across is not None:
        persons, pictures = made.persons_across
        told.append(f"persons in both halves: {persons:,}; they are on {pictures:,} validation pictures")
    for head, of_head in made.suspects.items():
        for split, found in of_head.items():
            surest = f"; the surest: {found[0].file}" if found else ""
            told.append(f"{head}, {split}: {len(found):,} labels contradicted{surest}")
    for link in made.links[:3]:
        told.append(f"{link.first} goes with {link.second}: Cram\u00e9r's V {link.strength:.2f}")
    return told


def format_area(value: float | None) -> str:
    """Returns an AUROC or average precision with three decimals, never rounded up to 1; `-` where it is not defined."""
    if value is None:
        return "-"
    return f"{min(value, 0.999) if value < 1 else 1.0:.3f}"


def format_accuracy(accuracy: float) -> str:
    """Returns a share as per cent with one decimal; what is not quite all is never rounded up to 100%."""
    return f"{min(100 * accuracy, 99.9) if accuracy < 1 else 100.0:.1f}%"


def format_loss(loss: float) -> str:
    """Returns a loss with four decimals, small ones in powers of ten."""
    return f"{loss:.4f}" if loss >= 1e-3 or loss == 0 else f"{loss:.1e}"


def _figures(result: HeadResult | None) -> list[str]:
    if result is None:
        return ["", ""]
    return [format_accuracy(result.accuracy), format_loss(result.loss)]


def _head_result(figures: Mapping[str, Any]) -> HeadResult:
    return HeadResult(**{name: figures[name] for name in HeadResult.__dataclass_fields__})


def _aligned(rows: Sequence[Sequence[str]], spans: Mapping[int, int] | None = None) -> str:
    """Returns rows of cells as lines: the first column to the left, all others to the right, a rule under the heading.

    Args:
      rows: of cells, the heading among them.
      spans: in the first row, over how many columns the cell of that number goes.
    """
    gap = "   "
    spans = spans or {}
    body = rows[1:] if spans else rows
    widths = [max(len(row[column]) for row in body) for column in range(len(rows[0]))]
    for start, count in spans.items():
        missing = len(rows[0][start]) - sum(widths[start : start + count]) - len(gap) * (count - 1)
        widths[start] += max(missing, 0)
    lines = []
    if spans:
        cells, column = [], 0
        while column < len(widths):
            count = spans.get(column, 1)
            width = sum(widths[column : column + count]) + len(gap) * (count - 1)
            cells.append(rows[0][column].rjust(width))
            column += count
        lines.append(gap.join(cells))
    for row in body:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(gap.join(cells))
    rule = "-" * (sum(widths) + len(gap) * (len(widths) - 1))
    heading = 2 if spans else 1
    return "\n".join(line.rstrip() for line in [*lines[:heading], rule, *lines[heading:]])
