"""`report.html` of a run: one self-contained page.

The template is `templates/report.html.j2`; this module computes its values, one function per section.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefeat_jax.config import TrainConfig, apply_smoke, list_recipes, load_recipe
from facefeat_jax.config._checks import option
from facefeat_jax.data.builders import is_drawn
from facefeat_jax.reporting import curves as curves_of
from facefeat_jax.reporting._pages import LARGEST, inlined, render
from facefeat_jax.reporting.samples import Sample
from facefeat_jax.reporting.table import OWN_PASS, WHY_THEY_DIFFER, ResultRow, result_rows
from facefeat_jax.runs.logs import read_metrics
from facefeat_jax.runs.run_folder import METRICS, REPORT, RESULTS, read_config, write_file
from facefeat_jax.system import checked_json, environment
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.text import as_written, count, format_accuracy, format_duration, format_loss

if TYPE_CHECKING:
    from facefeat_jax.evaluation.assessment import Assessment
    from facefeat_jax.reporting._report_sections import ExamplePicture


def write_report(
    run: Path,
    *,
    samples: Sequence[Sample] | None = None,
    assessment: Assessment | None = None,
    shown: Sequence[ExamplePicture] = (),
) -> Path:
    """Makes the report of a finished run.

    Args:
      run: the run folder.
      samples: pictures of the training data; see `training_samples`.
      assessment: an evaluation; with it, a run that was trained elsewhere has a report too.
      shown: pictures on which a head was right or wrong.

    Returns:
      The path of the page.

    Raises:
      UserError: the folder is not a run, or its training has not finished.
    """
    config = read_config(run)
    if assessment is not None and not (run / RESULTS).exists() and not (run / METRICS).exists():
        results: dict[str, Any] = {"heads": {}, "history": [], "environment": environment.of_run()}
        curves: dict[str, curves_of.HeadCurve] = {}
        rows = [ResultRow(task, result, None) for task, result in assessment.results.items()]
        series = {row.head: number for number, row in enumerate(rows)}
    else:
        results = _read_results(run)
        curves = curves_of.read_curves(run)
        rows = result_rows(results)
        series = {task: number for number, task in enumerate(curves)}
    trained_here = bool(curves)
    context = {
        "kind": "Training report" if trained_here else "Evaluation report",
        "title": run.resolve().name,
        "finished": _finished(run, results) if trained_here else "",
        "summary": _summary(run, config, results) if trained_here else f"Trained elsewhere: {config.model.weights}.",
        "cautions": cautions_of(config),
        "heads": [_head(row, series) for row in rows],
        "sequential": trained_here and config.batches.schedule == "sequential",
        "evaluation": _evaluation(assessment, shown, series),
        "own_pass": OWN_PASS,
        "why_they_differ": WHY_THEY_DIFFER,
        "training_figures": _training_figures(curves),
        "validation_figures": _validation_figures(curves, results["heads"]),
        "legend": [{"head": task, "series": number} for task, number in series.items()],
        "validations": _validations(curves),
        "samples": [
            {"source": inlined(sample.image, exact=True), "caption": sample.caption} for sample in samples or ()
        ],
        "samples_are_smaller": any(max(sample.image.shape) > LARGEST for sample in samples or ()),
        "data": _data(results.get("data")),
        "configuration": [(name, _shown(value)) for name, value in config.to_json().items()],
        "environment": [(name, _shown(value)) for name, value in results.get("environment", {}).items()],
        "command": str(results.get("command") or command_line(config)) if trained_here else "",
    }
    context["contents"] = _contents(context)
    return write_file(run / REPORT, render("report.html.j2", context).encode())


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the ids of the page's sections and what the contents call them."""
    evaluation = context["evaluation"] or {}
    sections = {
        "results": ("Results", True),
        "shown": ("Wrong answers", evaluation.get("shown")),
        "calibration": ("Probabilities", evaluation.get("calibration")),
        "groups": ("By group", evaluation and (evaluation["groups"]["any"] or evaluation["left_out"])),
        "figures": ("All metrics", evaluation),
        "training": ("Training", context["training_figures"]),
        "validation": ("Validation", context["validation_figures"]),
        "data": ("Data", context["samples"] or context["data"]),
        "command": ("Command", context["command"]),
        "configuration": ("Configuration", True),
        "environment": ("Environment", context["environment"]),
    }
    return [(name, title) for name, (title, is_there) in sections.items() if is_there]


def command_line(config: TrainConfig) -> str:
    """Returns the command that trains with this config: its recipe, and what is set to something else than there."""
    if config.recipe not in list_recipes():
        values = ", ".join(f"{name}={value!r}" for name, value in _changed(config, TrainConfig()).items())
        return f"facefeat_jax.commands.train(TrainConfig().replace({values}))"
    recipe = load_recipe(config.recipe).replace(smoke=config.smoke)
    words = ["facefeat", "train", config.recipe]
    if config.smoke != load_recipe(config.recipe).smoke:
        words.append("--smoke" if config.smoke else "--no-smoke")
    for name, value in _changed(config, apply_smoke(recipe)).items():
        if isinstance(value, bool):
            words.append(option(name if value else f"no_{name}"))
        else:
            words += [option(name), *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def _changed(config: TrainConfig, base: TrainConfig) -> dict[str, Any]:
    # `resume` and `overwrite` say how the folder was found, not what was trained.
    left, before = ("recipe", "resume", "overwrite"), base.flat()
    return {name: value for name, value in config.flat().items() if name not in left and value != before[name]}


def _read_results(run: Path) -> dict[str, Any]:
    path = run / RESULTS
    try:
        results = checked_json.read_checked(path).content
        result_rows(results)
    except FileNotFoundError:
        state = "its training has not finished" if (run / METRICS).exists() else "it was not trained here"
        raise UserError(
            f"{run} has no {RESULTS} to report: {state}. Continue it (facefeat train RECIPE --resume), or train again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, OSError | ValueError) else repr(error)
        raise UserError(
            f"{path} can't be read, or is not what was written ({reason}); restore it or train again"
        ) from error
    return results


def _finished(run: Path, results: Mapping[str, Any]) -> str:
    try:
        finished = datetime.fromisoformat(results["finished"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        finished = datetime.fromtimestamp((run / RESULTS).stat().st_mtime, UTC)
    return f"{finished.day} {finished:%B %Y, %H:%M} UTC"


def _summary(run: Path, config: TrainConfig, results: Mapping[str, Any]) -> str:
    """Returns a line that says what was trained on what, and how long it took."""
    schedule = "one head after the other" if config.batches.schedule == "sequential" else "all heads together"
    parts = [
        *([f"recipe {config.recipe}"] if config.recipe in list_recipes() else []),
        f"{config.model.trunk}, {config.data.image_size} px, on {', '.join(config.data.sources)}",
        f"{schedule}, {count(config.batches.epochs, 'epoch')} of batches of {config.batches.batch_size}",
    ]
    if "seconds" in results and "steps" in results:
        parts.append(f"{count(results['steps'], 'step')} in {format_duration(results['seconds'])}")
    lines = [row for row in read_metrics(run / METRICS) if row["event"] == "pass"]
    passes = [row for row in lines if {"seconds", "images_per_s"} <= row.keys()]  # a name may have been damaged
    if seconds := sum(row["seconds"] for row in passes):
        rate = sum(row["seconds"] * row["images_per_s"] for row in passes) / seconds
        parts.append(f"{rate:,.0f} images/s in training, including waiting for data")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def cautions_of(config: TrainConfig) -> list[str]:
    """Returns warnings that a reader must know before trusting the results."""
    cautions = []
    if config.smoke:
        cautions.append("This was a smoke run, which only shows that everything works. Its results mean nothing.")
    if drawn := [source for source in config.data.sources if is_drawn(source)]:
        cautions.append(
            f"The pictures of {' and '.join(drawn)} are drawn. A good score on them shows that the system works, and "
            "says nothing about people."
        )
    if "gender" in config.data.tasks:
        cautions.append(
            "The gender head predicts the label that a data set gives to an appearance. It does not know who a person "
            "is."
        )
    return cautions


def _evaluation(
    assessment: Assessment | None, shown: Sequence[ExamplePicture], series: Mapping[str, int]
) -> dict[str, Any] | None:
    if assessment is None:
        return None
    from facefeat_jax.reporting._report_sections import evaluation_context  # with scikit-learn

    return evaluation_context(assessment, shown, series, inlined)


def _head(row: ResultRow, series: Mapping[str, int]) -> dict[str, Any]:
    own = row.own_pass
    return {
        "name": row.head,
        "series": series.get(row.head, 0),
        "accuracy": format_accuracy(row.final.accuracy),
        "loss": format_loss(row.final.loss),
        "n": f"{row.final.n:,}",
        "own_accuracy": format_accuracy(own.accuracy) if own else "",
        "own_loss": format_loss(own.loss) if own else "",
        "own_loss_of_batches": format_loss(own.loss_of_batches) if own else "",
    }


def _training_figures(curves: Mapping[str, curves_of.HeadCurve]) -> list[dict[str, str]]:
    figures = []
    for number, (task, curve) in enumerate(curves.items()):
        if not curve.losses:
            continue
        line = curves_of.smooth(curve.losses)
        figures.append(
            {
                "title": f"{task}: training loss",
                "alt": (
                    f"Training loss of {task} over {count(len(line), 'step')}. Its moving average goes from "
                    f"{format_loss(line[0])} to {format_loss(line[-1])}; the minimum is {format_loss(line.min())}."
                ),
                "svg": curves_of.training_loss_svg(curve, number),
            }
        )
    return figures


def _validation_figures(
    curves: Mapping[str, curves_of.HeadCurve], final: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, str]]:
    if not any(curve.epochs for curve in curves.values()):
        return []
    figures = []
    for name, form in (("accuracy", format_accuracy), ("loss", format_loss)):
        described = []
        for task, curve in curves.items():
            values = curve.validation_accuracies if name == "accuracy" else curve.validation_losses
            if values:
                last = final.get(task, {}).get(name)
                after = f", {form(last)} with the final weights" if last not in (None, values[-1]) else ""
                described.append(
                    f"{task} from {form(values[0])} after epoch {curve.epochs[0]} to {form(values[-1])} after epoch "
                    f"{curve.epochs[-1]}{after}"
                )
        figures.append(
            {
                "title": f"validation {name}",
                "alt": f"Validation {name} by epoch: {'; '.join(described)}.",
                "svg": curves_of.validation_svg(curves, name, final),
            }
        )
    return figures


def _validations(curves: Mapping[str, curves_of.HeadCurve]) -> list[dict[str, Any]]:
    """Returns the figures of every validation: a line an epoch, a pair of accuracy and loss a head."""
    found: dict[int, dict[str, tuple[str, str]]] = {}
    for task, curve in curves.items():
        for epoch, accuracy, loss in zip(
            curve.epochs, curve.validation_accuracies, curve.validation_losses, strict=True
        ):
            found.setdefault(epoch, {})[task] = format_accuracy(accuracy), format_loss(loss)
    return [
        {"epoch": epoch, "figures": [of_epoch.get(task, ("", "")) for task in curves]}
        for epoch, of_epoch in sorted(found.items())
    ]


def _data(data: Any) -> dict[str, Any] | None:
    """Returns the table of pictures by class from what `count_data` made; None where there is none."""
    if not isinstance(data, Mapping) or not data:
        return None
    splits = list(data)
    lines = []
    for task in data[splits[0]]["classes"]:
        names = data[splits[0]]["classes"][task]
        for position, name in enumerate(names):
            counts = [f"{data[split]['classes'].get(task, {}).get(name, 0):,}" for split in splits]
            lines.append(
                {
                    "task": task if position == 0 else "",
                    "span": len(names),
                    "class": as_written(name),
                    "counts": counts,
                }
            )
    return {"splits": splits, "totals": [f"{data[split]['pictures']:,}" for split in splits], "lines": lines}


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
