"""`model-card.md` of a run: intended use, uses to avoid, results by group, and terms.

The sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefeat_jax.data.builders import get_source, list_sources
from facefeat_jax.evaluation.assessment import Assessment, largest_coverage_gaps, largest_gaps
from facefeat_jax.evaluation.slices import Slicing
from facefeat_jax.models.published import find_weights
from facefeat_jax.reporting._card_metadata import card_metadata
from facefeat_jax.reporting._pages import render
from facefeat_jax.reporting.report import cautions_of, command_line
from facefeat_jax.reporting.table import coverage_gap_text, gap_figures
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.run_folder import MODEL_CARD, RESULTS, read_config, write_file
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import environment
from facefeat_jax.system.markdown import Markdown, filled
from facefeat_jax.system.text import count, format_accuracy, format_area, format_given, format_loss, one_line


def write_model_card(run: Path, spec: ModelSpec, assessment: Assessment, likeness: Likeness | None = None) -> Path:
    """Writes the model card of a run from its evaluation and its likeness; returns its path.

    Raises:
      UserError: the folder is not a run, or the file can't be written.
    """
    config = read_config(run)
    weights = find_weights(spec.trunk, spec.weights)
    name, cautions = run.resolve().name, cautions_of(config)
    context = {
        "metadata": card_metadata(name, spec, assessment, [*cautions, *assessment.notes]),
        "name": name,
        "spec": spec,
        "classes": {task: ", ".join(names) for task, names in spec.classes.items()},
        "weights_terms": weights.licence if weights else "",
        "trained_here": (run / RESULTS).exists(),
        "command": Markdown(one_line(command_line(config))),
        "cautions": cautions,
        "sources": _sources(config.data.sources),
        "data": ", ".join(assessment.data),
        "data_notes": assessment.notes,
        "scores": [_scores(task, assessment) for task in assessment.scores],
        "notes": [(task, note) for task, score in assessment.scores.items() for note in score.notes],
        "gaps": [_gap(slicing) for slicing in largest_gaps(assessment.slicings)],
        "weakest": _weakest(assessment),
        "calibration": [_calibration(task, assessment) for task in assessment.calibration],
        "coverage": [
            filled("**{}**, by {}: {}.", task, "its own label" if by == task else by, coverage_gap_text(gap))
            for task, (by, gap) in largest_coverage_gaps(assessment.slicings).items()
        ],
        "likeness": [(task, note) for task, h in (likeness.heads if likeness else {}).items() for note in h.notes],
        "unsliced": sorted(set(assessment.scores) - {t for t, found in assessment.slicings.items() if found}),
        "environment": environment.of_run(),
    }
    return write_file(run / MODEL_CARD, render("model-card.md.j2", context).encode())


def _sources(names: Sequence[str]) -> list[dict[str, str]]:
    found = []
    for name in names:
        known: dict[str, str] = {"what": "", "terms": "unknown", "homepage": ""}
        if name in list_sources():
            source = get_source(name)
            homepage = Markdown(one_line(source.homepage))
            known = {"what": source.description, "terms": source.terms, "homepage": homepage}
        found.append({"name": name, **known})
    return found


def _scores(task: str, assessment: Assessment) -> dict[str, Any]:
    score = assessment.scores[task]
    low, high = score.intervals["accuracy"] or (0.0, 1.0)
    return {
        "task": task,
        "accuracy": f"{format_accuracy(score.values['accuracy'] or 0.0)} "
        f"({format_accuracy(low)} to {format_accuracy(high)})",
        "balanced": format_accuracy(score.values["balanced_accuracy"] or 0.0),
        "auroc": format_area(score.values["auroc"]),
        "loss": format_loss(score.values["loss"] or 0.0),
        "ece": format_loss(score.values["ece"] or 0.0),
        "n": f"{score.n:,}",
    }


def _gap(slicing: Slicing) -> Markdown:
    gap, low, high, by_chance = gap_figures(slicing)
    predicted = " (groups predicted by another head)" if slicing.predicted else ""
    by = "its own label" if slicing.by == slicing.head else slicing.by
    return filled(
        "**{}** by {}: accuracy is {} points lower on {} than on {} ({} to {}); chance alone explains up to {}.",
        *(slicing.head, by + predicted, gap, slicing.lowest, slicing.highest, low, high, by_chance),
    )


def _weakest(assessment: Assessment) -> list[Markdown]:
    """Returns for each head the known group with the lowest accuracy, if the gap exceeds chance."""
    found = []
    for slicing in (slicing for slicings in assessment.slicings.values() for slicing in slicings):
        if slicing.exceeds_chance and not slicing.predicted and "×" not in slicing.by:
            group = next(group for group in slicing.slices if group.value == slicing.lowest)
            low, high = group.interval or (0.0, 1.0)
            share = f"{format_accuracy(group.accuracy or 0.0)} ({format_accuracy(low)} to {format_accuracy(high)})"
            of = f"{share} of {count(group.n, 'picture')}"
            found.append(filled("**{}**, {} {}: accuracy {}", slicing.head, slicing.by, group.value, of))
    return found


def _calibration(task: str, assessment: Assessment) -> Markdown:
    check = assessment.calibration[task]
    fitted = check.fitted
    text = (
        f"temperature {fitted.temperature:.3f}; calibration error "
        f"{format_loss(check.before.values['ece'] or 0.0)} before and {format_loss(check.after.values['ece'] or 0.0)} "
        f"after, on {count(check.before.n, 'picture')}"
    )
    if not fitted.never_sure and check.coverage is not None and check.accuracy is not None:
        text += (
            f"; with its threshold for at most {format_given(fitted.error_rate)} wrong answers it answers "
            f"{format_accuracy(check.coverage)} of them, with an accuracy of {format_accuracy(check.accuracy)}"
        )
    return filled("**{}**: {}", task, "; ".join([text, *check.notes]))
