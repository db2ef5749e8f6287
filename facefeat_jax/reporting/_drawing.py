"""How figures are drawn: the colours and the look of all of them, and SVG for a page.

matplotlib is loaded when something is drawn, and its global state (pyplot, backends) is left alone.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind tell apart; darkened or lightened until each has a contrast of 3:1 or
# more with white (first of a pair) and with the report's dark background (second). Marks differ as well.
SERIES_COLORS = (
    ("#0072b2", "#56b4e9"),
    ("#c65400", "#f0a030"),
    ("#00805c", "#2fcf9f"),
    ("#a8467f", "#e49ac4"),
    ("#6b6b00", "#d9cf4a"),
)
SERIES_MARKERS = ("o", "s", "^", "D", "v")

INK = "#1d2329"  # of axes and letters
SVG_INK = "#010203"  # stands in the SVG for the page's own colour of letters, which then replaces it
_FONTS = ["DejaVu Sans"]  # comes with matplotlib: the same picture everywhere


def dress(axes: Axes, ink: str) -> None:
    """Gives axes the look that all figures have, in the colour `ink`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.spines[["left", "bottom"]].set_alpha(0.6)
    axes.tick_params(which="both", colors=ink, length=3)
    axes.tick_params(which="minor", labelleft=False)
    axes.xaxis.label.set_color(ink)
    axes.grid(axis="y", color=ink, alpha=0.14, linewidth=0.8)
    axes.set_axisbelow(True)


def style(font_size: float, padding: float) -> Any:
    """Returns the settings to draw with, as a context; `padding` is around each plot, in inches."""
    import matplotlib

    return matplotlib.rc_context(
        {
            # A head is called what it is called: `$` begins no formula.
            "text.parse_math": False,
            "text.usetex": False,
            "font.family": "sans-serif",
            "font.sans-serif": _FONTS,
            "font.size": font_size,
            "axes.titlesize": "large",
            "axes.titleweight": "bold",
            "axes.titlecolor": INK,
            "axes.titlepad": 10,
            "figure.constrained_layout.h_pad": padding,
            "figure.constrained_layout.w_pad": padding,
            "lines.solid_capstyle": "round",
            "lines.solid_joinstyle": "round",
            "path.simplify": True,
            # Letters stay letters in the SVG, in the page's own type; the same input gives the same bytes.
            "svg.fonttype": "none",
            "svg.hashsalt": "facefeat",
        }
    )


def svg_of(draw: Callable[[Axes], object]) -> str:
    """Returns what `draw` puts on axes as an SVG element whose colours are the page's."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # As wide as it is shown, on a phone and in a row of three: the letters keep their size.
    with style(12.5, 0.02):
        figure = Figure(figsize=(4.6, 3.0), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inlined(buffer.getvalue())


def series_color(number: int) -> str:
    """Returns what stands in the SVG for a series' colour; no other colour in it looks like this."""
    return f"#01020{4 + number % len(SERIES_COLORS)}"


def _inlined(svg: str) -> str:
    """Makes matplotlib's SVG file an element for a page: no prolog, own ids, colours by the page's style."""
    svg = svg[svg.index("<svg") :]
    # The style sheet in it is meant for a file of its own; the page says the same of its figures.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # The size is the page's to choose, the letters' type too.
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    svg = f'<svg {view.group()} aria-hidden="true" focusable="false">{rest}'
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = svg.replace('xlink:href="', 'href="')
    # Ids are one space for the whole page: elements that differ get others.
    prefix = f"g{hashlib.sha256(svg.encode()).hexdigest()[:10]}-"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    svg = svg.replace(SVG_INK, "currentColor")
    for number in range(len(SERIES_COLORS)):
        svg = svg.replace(series_color(number), f"var(--series-{number})")
    return svg
