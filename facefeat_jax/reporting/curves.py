"""Curves of a run: losses and accuracies over the training, as `curves.png` and as SVG for the report."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facefeat_jax.reporting._drawing import (
    INK,
    SERIES_COLORS,
    SERIES_MARKERS,
    SVG_INK,
    dress,
    series_color,
    style,
    svg_of,
)
from facefeat_jax.runs.logs import read_metrics
from facefeat_jax.runs.run_folder import CURVES, METRICS, RESULTS, write_file
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOG_RANGE = 30.0  # a loss that falls by more than this factor is drawn on a logarithmic axis
_MAX_BINS = 400  # raw losses are thinned to this many pairs of least and greatest: no screen shows more


@dataclass(frozen=True)
class HeadCurve:
    """The log of a run for one head.

    Attributes:
      losses: losses of each of its training steps, in order.
      accuracies: accuracies of the same steps, over the pictures of the batch.
      epoch_starts: the numbers (from 0) of the steps with which a new epoch began, but for the first.
      epochs: the epochs (from 1) after which it was validated.
      validation_losses: after each of `epochs`.
      validation_accuracies: after each of `epochs`.
    """

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    epoch_starts: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_accuracies: list[float] = field(default_factory=list)


def read_curves(run: Path) -> dict[str, HeadCurve]:
    """Reads the log of a run, by head, in the order in which they were first trained.

    Raises:
      UserError: the folder has no log, or the log is not that of a training.
    """
    path = run / METRICS
    try:
        rows = read_metrics(path)
    except FileNotFoundError:
        raise UserError(f"{run} has no {METRICS}: only runs that `facefeat train` made have curves") from None
    except (OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} can't be read ({error}); restore it or train again") from error
    curves: dict[str, HeadCurve] = {}
    epoch_of: dict[str, int] = {}
    try:
        for row in rows:
            task = row["task"]
            if row["event"] == "train":
                curve = curves.setdefault(task, HeadCurve())
                if epoch_of.setdefault(task, row["epoch"]) != row["epoch"]:
                    curve.epoch_starts.append(len(curve.losses))
                    epoch_of[task] = row["epoch"]
                curve.losses.append(float(row["loss"]))
                curve.accuracies.append(float(row["accuracy"]))
            elif row["event"] == "validation":
                curve = curves.setdefault(task, HeadCurve())
                curve.epochs.append(int(row["epoch"]))
                curve.validation_losses.append(float(row["loss"]))
                curve.validation_accuracies.append(float(row["accuracy"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds a line that is not of a training log ({error!r}); train again") from error
    if not any(curve.losses for curve in curves.values()):
        raise UserError(f"{path} holds no training step yet; train it first (with --resume)")
    return curves


def smooth(values: Sequence[float] | np.ndarray, window: int | None = None) -> np.ndarray:
    """Returns the moving average: over `window` values around each, and over those that there are at the ends.

    Args:
      values: a value for each step.
      window: how many; the default is a twentieth of them, between 5 and 100.
    """
    array = np.asarray(values, np.float64)
    if window is None:
        window = int(np.clip(len(array) // 20, 5, 100))
    total = np.concatenate([[0.0], np.cumsum(array)])
    positions = np.arange(len(array))
    first = np.maximum(positions - window // 2, 0)
    end = np.minimum(positions + window // 2 + 1, len(array))
    return (total[end] - total[first]) / (end - first)


def write_curves(run: Path) -> Path:
    """Draws the losses and accuracies of a run into its `curves.png`.

    A run that is still training, or was interrupted, is drawn as far as it has come.

    Returns:
      The path of the picture.

    Raises:
      UserError: the folder has no log of a training.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = read_curves(run)
    final = _final_heads(run)
    columns = max(len(curves), 2)
    with style(10.5, 0.12):
        figure = Figure(figsize=(4.2 * columns, 6.4), dpi=150, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, columns * 2)
        for column, (task, curve) in enumerate(curves.items()):
            # A single head has the row to itself.
            span = slice(2 * column, 2 * column + 2) if len(curves) > 1 else slice(0, None)
            axes = figure.add_subplot(grid[0, span])
            draw_training_loss(axes, curve, SERIES_COLORS[column % len(SERIES_COLORS)][0], INK)
            axes.set_title(f"{task}: training loss", loc="left")
        for half, (name, title) in enumerate((("accuracy", "validation accuracy"), ("loss", "validation loss"))):
            axes = figure.add_subplot(grid[1, half * columns : (half + 1) * columns])
            hollow = draw_validation(axes, curves, name, final, [light for light, _ in SERIES_COLORS], INK)
            axes.set_title(title + (" (hollow: of the final weights)" if hollow else ""), loc="left")
            if half == 0 and len(axes.lines):
                axes.legend(loc="best", frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return write_file(run / CURVES, buffer.getvalue())


def training_loss_svg(curve: HeadCurve, series: int) -> str:
    """Returns an SVG element with the training loss of a head; `series` is the number of its colour."""
    return svg_of(lambda axes: draw_training_loss(axes, curve, series_color(series), SVG_INK))


def validation_svg(curves: Mapping[str, HeadCurve], name: str, final: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns an SVG element with what the validations found; arguments as for `draw_validation`."""
    colors = [series_color(number) for number in range(len(SERIES_COLORS))]
    return svg_of(lambda axes: draw_validation(axes, curves, name, final, colors, SVG_INK))


def draw_training_loss(axes: Axes, curve: HeadCurve, color: str, ink: str) -> None:
    """Draws the loss of each step, faint, and its moving average; epochs are parted by dotted lines."""
    line = smooth(curve.losses)
    steps = np.arange(1, len(line) + 1)
    axes.plot(*thinned(steps, np.asarray(curve.losses)), color=color, alpha=0.35, linewidth=0.7)
    axes.plot(*_sampled(steps, line), color=color, linewidth=2.0)
    for start in curve.epoch_starts:
        axes.axvline(start + 0.5, color=ink, alpha=0.35, linewidth=0.8, linestyle=":")
    lowest, highest = float(line.min(initial=np.inf)), float(max(curve.losses, default=1.0))
    if lowest > 0 and highest / lowest > _LOG_RANGE:
        _log_scale(axes)
        axes.set_ylim(lowest / 2, highest * 1.3)
    else:
        # The line is the message; a few outliers of single batches may leave the picture at the top.
        axes.set_ylim(0, max(1.25 * float(line.max(initial=0.0)), float(np.quantile(curve.losses, 0.99))) or 1.0)
    axes.set_xlim(1, max(len(line), 2))
    axes.set_xlabel("iteration")
    dress(axes, ink)


def draw_validation(
    axes: Axes,
    curves: Mapping[str, HeadCurve],
    name: str,
    final: Mapping[str, Mapping[str, Any]],
    colors: Sequence[str],
    ink: str,
) -> bool:
    """Draws a figure of each validation, by epoch, one line a head.

    Args:
      axes: to draw on.
      curves: by head.
      name: `accuracy` or `loss`.
      final: figures of the final weights, by head; drawn hollow where they differ from the last validation's.
      colors: colours of the heads, in order; they repeat if there are too few.
      ink: colour of axes and letters.

    Returns:
      Whether there are hollow marks.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    shown: list[float] = []
    hollow = False
    for number, (task, curve) in enumerate(curves.items()):
        values = curve.validation_accuracies if name == "accuracy" else curve.validation_losses
        if not values:
            continue
        color, marker = colors[number % len(colors)], SERIES_MARKERS[number % len(SERIES_MARKERS)]
        axes.plot(curve.epochs, values, color=color, marker=marker, markersize=5.5, linewidth=2.0, label=task)
        shown += values
        last = float(final.get(task, {}).get(name, values[-1]))
        if last != values[-1]:
            ends = [curve.epochs[-1]] * 2
            axes.plot(ends, [values[-1], last], color=color, linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
            axes.plot(ends[1:], [last], color=color, marker=marker, markersize=7, fillstyle="none", clip_on=False)
            shown.append(last)
            hollow = True
    shown = [value for value in shown if math.isfinite(value)]  # what is not has no place on an axis
    if name == "accuracy":
        low = min(shown, default=0.0)
        axes.set_ylim(max(0.0, low - 0.1 * (1 - low) - 0.01), 1.0 + 0.05 * (1.02 - low))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if low < 0.95 else 1))
    elif shown and min(shown) > 0 and max(shown) / min(shown) > _LOG_RANGE:
        _log_scale(axes)
    else:
        axes.set_ylim(0, 1.1 * max(shown, default=1.0) or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.margins(x=0.06)
    dress(axes, ink)
    return hollow


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    # 0.01 rather than a power of ten: read at a glance, and letters of one size.
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest of each stretch of values, so that no spike is lost."""
    if len(values) <= 2 * _MAX_BINS:
        return steps, values
    edges = np.linspace(0, len(values), _MAX_BINS + 1).astype(int)
    kept: list[int] = []
    for start, end in itertools.pairwise(edges.tolist()):
        stretch = values[start:end]
        kept += sorted({start + int(np.argmin(stretch)), start + int(np.argmax(stretch))})
    return steps[kept], values[kept]


def _sampled(steps: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns every so many points of a line that is smooth already, the last among them."""
    kept = np.unique(np.linspace(0, len(line) - 1, min(len(line), _MAX_BINS)).astype(int))
    return steps[kept], line[kept]


def _final_heads(run: Path) -> dict[str, dict[str, Any]]:
    """Returns the figures of the final weights, where the run has come so far."""
    try:
        return checked_json.read_checked(run / RESULTS).content["heads"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
