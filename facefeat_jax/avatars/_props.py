"""Draws what the figure holds before its chest: a second patch of colour that is not the shirt's."""

from __future__ import annotations

import math

from facefeat_jax.avatars._palette import darker, lighter, luma
from facefeat_jax.avatars._parts import Face, Prop
from facefeat_jax.avatars._pen import Pen, ellipse, rounded, smooth


def draw_prop(pen: Pen, prop: Prop, face: Face) -> None:
    """Draws the thing and the hand that holds it; the pen's frame is the body's."""
    if prop.kind == "none":
        return
    thing = pen.frame(prop.x, prop.y, (prop.size, prop.size), prop.angle)
    color, trim = prop.color, prop.trim
    edge = darker(color, 0.35) if luma(color) > 45 else (86, 86, 94)
    if prop.kind == "book":
        thing.fill(rounded(0, 0, 0.38, 0.44, 9.0), edge)
        thing.fill(rounded(0.02, 0, 0.34, 0.41, 9.0), color)
        thing.fill(rounded(0.04, -0.14, 0.22, 0.1, 8.0), trim)
        thing.line([(-0.27, -0.4), (-0.27, 0.4)], 0.04, edge)
    elif prop.kind == "mug":
        thing.ring(ellipse(0.36, 0.02, 0.17, 0.18), 0.09, edge)
        thing.fill(rounded(0, 0, 0.36, 0.4, 6.0), edge)
        thing.fill(rounded(0, 0, 0.33, 0.37, 6.0), color)
        thing.fill(ellipse(0, -0.34, 0.3, 0.07), (74, 44, 30))
        thing.fill(ellipse(0, 0.04, 0.13, 0.13), trim)
    elif prop.kind == "cat":
        for side in (-1.0, 1.0):
            thing.fill([(side * 0.06, -0.3), (side * 0.4, -0.62), (side * 0.44, -0.02)], edge)
            thing.fill([(side * 0.14, -0.3), (side * 0.36, -0.52), (side * 0.38, -0.08)], lighter(color, 0.3))
        thing.fill(ellipse(0, 0.62, 0.5, 0.55), edge)
        thing.fill(ellipse(0, 0.64, 0.46, 0.52), color)
        thing.fill(ellipse(0, 0, 0.46, 0.38), edge)
        thing.fill(ellipse(0, 0, 0.43, 0.35), color)
        eye = (28, 22, 26) if luma(color) > 70 else (226, 216, 120)
        for side in (-1.0, 1.0):
            thing.fill(ellipse(side * 0.17, -0.04, 0.055, 0.075), eye)
            thing.line([(side * 0.1, 0.13), (side * 0.36, 0.08)], 0.022, lighter(edge, 0.4))
        thing.fill([(-0.05, 0.07), (0.05, 0.07), (0, 0.13)], (226, 120, 130))
    elif prop.kind == "ball":
        thing.fill(ellipse(0, 0, 0.47, 0.47), edge)
        thing.fill(ellipse(0, 0, 0.44, 0.44), color)
        for side in (-1.0, 1.0):
            thing.line(smooth([(side * 0.3, -0.32), (side * 0.12, 0), (side * 0.3, 0.32)], False), 0.05, trim)
        thing.fill(ellipse(-0.14, -0.24, 0.12, 0.07), lighter(color, 0.6), 0.8)
    else:
        thing.fill([(-0.12, 0.1), (0.12, 0.1), (0.05, 0.8), (-0.05, 0.8)], (70, 130, 66))
        for i in range(5):
            x, y = 0.26 * math.cos(i * 1.257 + 0.3), -0.1 + 0.22 * math.sin(i * 1.257 + 0.3)
            for j in range(5):
                thing.fill(ellipse(x + 0.09 * math.cos(j * 1.257), y + 0.09 * math.sin(j * 1.257), 0.08, 0.08), color)
            thing.fill(ellipse(x, y, 0.065, 0.065), trim)
    skin, shadow = face.color, darker(face.color, 0.3)
    for i in range(3):
        for tone, width in ((shadow, 0.13), (skin, 0.095)):
            y = 0.2 + 0.115 * i
            thing.line([(0.5, y), (0.24, y)], width, tone)
            thing.fill(ellipse(0.24, y, width / 2, width / 2), tone)
