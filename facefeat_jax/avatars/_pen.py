"""Shapes as arrays of points, and the pen that fills them in a turned, scaled and shifted frame."""

from __future__ import annotations

import math

import numpy as np
from PIL import ImageDraw

from facefeat_jax.avatars._palette import Color

_TURN = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_STEPS = np.linspace(0.0, 1.0, 5, endpoint=False)[:, None]
# Catmull-Rom: the curve goes through its control points, so shapes can be written down as they would be drawn.
_SPLINE = 0.5 * np.concatenate(
    [
        -_STEPS + 2 * _STEPS**2 - _STEPS**3,
        2 - 5 * _STEPS**2 + 3 * _STEPS**3,
        _STEPS + 4 * _STEPS**2 - 3 * _STEPS**3,
        -(_STEPS**2) + _STEPS**3,
    ],
    axis=1,
)

Points = list[tuple[float, float]] | np.ndarray


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Returns the points of an ellipse."""
    return _CIRCLE * (rx, ry) + (x, y)


def rounded(x: float, y: float, rx: float, ry: float, power: float) -> np.ndarray:
    """Returns the points of a superellipse: power 2 is an ellipse, higher powers come close to a rectangle."""
    return np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2.0 / power) * (rx, ry) + (x, y)


def smooth(points: Points, closed: bool = True) -> np.ndarray:
    """Returns a smooth curve through the points."""
    p = np.asarray(points, dtype=float)
    q = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    count = len(q) - 3
    curve = np.einsum("sk,knd->nsd", _SPLINE, np.array([q[i : i + count] for i in range(4)])).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def mirrored(*half: tuple[float, float]) -> list[tuple[float, float]]:
    """Returns points of the right half and, in the reverse order, their mirror images; those on the axis once."""
    return [*half, *((-x, y) for x, y in half[::-1] if x)]


class Pen:
    """Fills shapes on a canvas; shapes are given in the pen's own frame.

    Args:
      canvas: an `ImageDraw` of mode RGBA on an RGB picture, so that fills may be translucent.
      matrix: [2, 3], from the pen's frame to pixels.
    """

    def __init__(self, canvas: ImageDraw.ImageDraw, matrix: np.ndarray) -> None:
        self._canvas = canvas
        self._matrix = matrix
        self._linear = matrix[:, :2].T.copy()
        self._shift = matrix[:, 2].copy()

    def frame(self, x: float = 0.0, y: float = 0.0, scale: tuple[float, float] = (1.0, 1.0), angle: float = 0.0) -> Pen:
        """Returns a pen whose frame is scaled, then turned by `angle`, then put at (x, y) of this pen's."""
        c, s = math.cos(angle), math.sin(angle)
        local = np.array([[c * scale[0], -s * scale[1], x], [s * scale[0], c * scale[1], y], [0.0, 0.0, 1.0]])
        return Pen(self._canvas, self._matrix @ local)

    def fill(self, points: Points, color: Color, alpha: float = 1.0) -> None:
        """Fills a polygon; `alpha` 1 is opaque."""
        pixels = np.asarray(points, dtype=float) @ self._linear + self._shift
        self._canvas.polygon(pixels.ravel().tolist(), fill=(*color, round(255 * alpha)))

    def line(
        self, points: Points, width: float, color: Color, alpha: float = 1.0, taper: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        """Draws a line of this width through the points; `taper` is the part of the width at start and end."""
        p = np.asarray(points, dtype=float)
        along = np.empty_like(p)
        along[1:-1] = p[2:] - p[:-2]
        along[0], along[-1] = p[1] - p[0], p[-1] - p[-2]
        across = along[:, ::-1] * (-1.0, 1.0)
        half: float | np.ndarray = 0.5 * width
        if taper != (1.0, 1.0):
            half = half * np.interp(
                np.arange(len(p)), (0.0, 0.5 * (len(p) - 1), len(p) - 1.0), (taper[0], 1.0, taper[1])
            )
        across *= (half / np.maximum(np.hypot(across[:, 0], across[:, 1]), 1e-9))[:, None]
        self.fill(np.concatenate([p + across, (p - across)[::-1]]), color, alpha)

    def blob(self, points: Points, color: Color, alpha: float = 1.0) -> None:
        """Fills the smooth closed curve through the points."""
        self.fill(smooth(points), color, alpha)

    def stroke(
        self, points: Points, width: float, color: Color, alpha: float = 1.0, taper: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        """Draws a line along the smooth open curve through the points."""
        self.line(smooth(points, closed=False), width, color, alpha, taper)

    def ring(self, points: np.ndarray, width: float, color: Color, alpha: float = 1.0) -> None:
        """Draws a closed line of this width along the points."""
        closed = np.concatenate([points, points[:2]])
        self.line(closed, width, color, alpha)
