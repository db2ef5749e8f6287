"""Reliability diagrams and coverage curves, as SVG for the report."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from facefeat_jax.evaluation.slices import LEAST
from facefeat_jax.reporting._drawing import SERIES_MARKERS, SVG_INK, dress, series_color, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from facefeat_jax.evaluation._reliability import Coverage
    from facefeat_jax.evaluation.assessment import CalibrationCheck


def reliability_svg(check: CalibrationCheck, series: int, *, least: float) -> str:
    """Returns an SVG element: accuracy by the probability of the answer, before (hollow) and after the temperature.

    A line joins neighbouring bins of `LEAST` pictures or more; bins with fewer are marks with their intervals.

    Args:
      check: calibration check of a head.
      series: the number of its colour.
      least: where the axis of the probability begins.
    """
    before, after = check.bins_before, check.bins_after

    def draw(axes: Axes) -> None:
        color, marker = series_color(series), SERIES_MARKERS[series % len(SERIES_MARKERS)]
        axes.plot([least, 1], [least, 1], color=SVG_INK, alpha=0.5, linewidth=1, linestyle="--")
        x, y = [bin_.confidence for bin_ in before], [bin_.accuracy for bin_ in before]
        axes.plot(x, y, color=color, marker=marker, markersize=6, fillstyle="none", linestyle="none")
        x, y = [bin_.confidence for bin_ in after], [bin_.accuracy for bin_ in after]
        below = [bin_.accuracy - bin_.interval[0] for bin_ in after]
        above = [bin_.interval[1] - bin_.accuracy for bin_ in after]
        axes.errorbar(
            x, y, yerr=[below, above], color=color, marker=marker, markersize=5, linestyle="none", elinewidth=1
        )
        for first, second in itertools.pairwise(after):
            if min(first.n, second.n) >= LEAST and first.high == second.low:
                ends = (first.confidence, second.confidence), (first.accuracy, second.accuracy)
                axes.plot(*ends, color=color, linewidth=2)
        axes.set_xlim(least, 1.01)
        axes.set_ylim(0, 1.03)
        _finish(axes, "probability of the answer")

    return svg_of(draw)


def worth_drawing(check: CalibrationCheck) -> list[Coverage]:
    """Returns the points of the coverage curve with `LEAST` answers or more: fewer are noise; the last if none has."""
    n = check.after.n
    return [point for point in check.curve if round(point.coverage * n) >= LEAST] or check.curve[-1:]


def coverage_svg(check: CalibrationCheck, series: int, *, low: float) -> str:
    """Returns an SVG element: accuracy of the answers by the share of pictures answered.

    Args:
      check: calibration check of a head.
      series: the number of its colour.
      low: where the axis of the accuracy begins.
    """
    curve = worth_drawing(check)

    def draw(axes: Axes) -> None:
        color, marker = series_color(series), SERIES_MARKERS[series % len(SERIES_MARKERS)]
        x, y = [point.coverage for point in curve], [point.accuracy for point in curve]
        axes.plot(x, y, color=color, linewidth=2, marker=marker if len(curve) == 1 else None)
        wanted = 1 - check.fitted.error_rate
        axes.axhline(wanted, color=SVG_INK, alpha=0.5, linewidth=1, linestyle="--")
        if check.coverage and check.accuracy is not None:
            axes.plot([check.coverage], [check.accuracy], color=color, marker=marker, markersize=8, clip_on=False)
        axes.set_ylim(low, 1.01)
        axes.set_xlim(0, 1.01)
        _finish(axes, "pictures that get an answer")

    return svg_of(draw)


def _finish(axes: Axes, title: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_xlabel(title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    dress(axes, SVG_INK)
