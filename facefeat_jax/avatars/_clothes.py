"""Draws neck, shirt and what is worn over it."""

from __future__ import annotations

import math

import numpy as np

from facefeat_jax.avatars._dice import Dice
from facefeat_jax.avatars._palette import Color, darker, lighter, shade
from facefeat_jax.avatars._parts import Clothes, Face
from facefeat_jax.avatars._pen import Pen, ellipse, mirrored, rounded, smooth

_TOP = 1.0  # where the shoulders begin, in units below the head's centre


def draw_clothes(pen: Pen, clothes: Clothes, shirt: str, face: Face, dice: Dice) -> None:
    """Draws the body from the neck down; the pen's frame is the body's."""
    color = shade(shirt, clothes.along)
    edge = darker(color, 0.3) if shirt != "black" else (70, 70, 80)
    width = clothes.shoulders
    skin, skin_shadow = face.color, darker(face.color, 0.22)

    if clothes.neck == "hood":
        pen.blob(mirrored((0, 0.62), (0.72, 0.85), (0.75, 1.25)), darker(color, 0.2))
    pen.fill(mirrored((0.36, 0.5), (0.42, _TOP + 0.3)), skin_shadow)
    pen.fill(_torso(width, 0.04), edge)
    pen.fill(_torso(width, 0.0), color)
    _draw_print(pen, clothes, width, dice)
    # Folds: the sleeves' seams and two creases.
    for side in (-1.0, 1.0):
        seam = [(side * 0.72 * width, 1.42), (side * 0.66 * width, 1.8), (side * 0.7 * width, 2.6)]
        pen.stroke(seam, 0.05, edge, 0.7)
        crease = [(side * 0.3, 1.55 + 0.1 * dice.unit()), (side * 0.42, 1.8), (side * 0.36, 2.1)]
        pen.stroke(crease, 0.05, edge, 0.45)
    _draw_neckline(pen, clothes.neck, color, edge, skin, skin_shadow)
    _draw_over(pen, clothes, width)


def _torso(width: float, grow: float) -> np.ndarray:
    neck = [(0.36, _TOP - 0.02 - grow), (0.62 * width, _TOP + 0.12 - grow)]
    right = smooth([*neck, (width + grow, _TOP + 0.55), (1.1 * width + grow, 3.2)], closed=False)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def _draw_neckline(pen: Pen, neck: str, color: Color, edge: Color, skin: Color, skin_shadow: Color) -> None:
    if neck == "crew":
        pen.fill(ellipse(0, _TOP, 0.5, 0.26), edge)
        pen.fill(ellipse(0, _TOP - 0.03, 0.42, 0.2), skin_shadow)
    elif neck == "vee":
        pen.fill([(-0.48, _TOP - 0.04), (0.48, _TOP - 0.04), (0, _TOP + 0.55)], edge)
        pen.fill([(-0.4, _TOP - 0.06), (0.4, _TOP - 0.06), (0, _TOP + 0.44)], skin)
        pen.fill([(-0.4, _TOP - 0.06), (0.4, _TOP - 0.06), (0, _TOP + 0.2)], skin_shadow)
    elif neck == "collar":
        pen.fill([(-0.38, _TOP - 0.1), (0.38, _TOP - 0.1), (0, _TOP + 0.3)], skin_shadow)
        pen.line([(0, _TOP + 0.25), (0, 3.2)], 0.035, edge)
        for y in (1.5, 1.8, 2.1):
            pen.fill(ellipse(0, y, 0.04, 0.04), lighter(color, 0.55))
        for side in (-1.0, 1.0):
            flap = np.array([(0.36, _TOP - 0.14), (0.62, _TOP + 0.06), (0.36, _TOP + 0.42), (0.02, _TOP + 0.24)])
            pen.fill(flap * (side, 1), edge)
            pen.fill((flap - (0.34, 1.12)) * 0.82 * (side, 1) + (0.34 * side, 1.12), lighter(color, 0.12))
    elif neck == "turtleneck":
        pen.blob(mirrored((0.46, 0.8), (0.52, _TOP + 0.14), (0, _TOP + 0.24)), edge)
        pen.blob(mirrored((0.43, 0.8), (0.48, _TOP + 0.1), (0, _TOP + 0.19)), color)
        pen.stroke([(-0.42, 0.95), (0, 1.03), (0.42, 0.95)], 0.03, edge, 0.8)
    else:
        pen.blob(mirrored((0.5, _TOP - 0.1), (0.3, _TOP + 0.25)), edge)
        pen.blob(mirrored((0.4, _TOP - 0.12), (0.22, _TOP + 0.16)), skin_shadow)
        for side in (-1.0, 1.0):
            pen.line([(side * 0.24, _TOP + 0.2), (side * 0.26, _TOP + 0.6)], 0.045, lighter(color, 0.6))


def _draw_print(pen: Pen, clothes: Clothes, width: float, dice: Dice) -> None:
    color = clothes.print_color
    if clothes.print == "stripes":
        step, y = dice.uniform(0.24, 0.34), 1.5
        while y < 2.6:
            pen.fill([(-width, y), (width, y), (width, y + 0.06), (-width, y + 0.06)], color)
            y += step
    elif clothes.print == "bars":
        step = dice.uniform(0.3, 0.4)
        for i in range(-4, 5):
            x = i * step
            if abs(x) < 0.85 * width:
                top = _TOP + 0.12 + 0.5 * (abs(x) / width) ** 2
                pen.fill([(x - 0.03, top), (x + 0.03, top), (x + 0.03, 3), (x - 0.03, 3)], color)
    elif clothes.print == "dots":
        size = dice.uniform(0.05, 0.07)
        for row in range(5):
            for i in range(-5, 6):
                x, y = (i + 0.5 * (row % 2)) * 0.3, 1.32 + 0.24 * row
                if abs(x) < 0.8 * width and y > _TOP + 0.2 + 0.3 * (x / width) ** 2:
                    pen.fill(ellipse(x, y, size, size), color)
    elif clothes.print == "badge":
        x = dice.pick((-0.55, 0.55))
        pen.fill([(x - 0.17, 1.5), (x + 0.17, 1.5), (x + 0.17, 1.72), (x, 1.82), (x - 0.17, 1.72)], color)
    elif clothes.print == "star":
        reach = [0.28 if i % 2 == 0 else 0.12 for i in range(10)]
        turn = [i * math.pi / 5 for i in range(10)]
        pen.fill([(r * math.sin(t), 1.62 - r * math.cos(t)) for r, t in zip(reach, turn, strict=True)], color)


def _draw_over(pen: Pen, clothes: Clothes, width: float) -> None:
    color = clothes.over_color
    edge = darker(color, 0.35) if sum(color) > 120 else (84, 84, 92)
    if clothes.over in ("jacket", "waistcoat"):
        outer = 1.12 * width if clothes.over == "jacket" else 0.62 * width
        for side in (-1.0, 1.0):
            if clothes.over == "jacket":
                shoulder = [(0.4, _TOP - 0.04), (0.62 * width, _TOP + 0.1), (width + 0.02, _TOP + 0.54)]
                panel = smooth([*shoulder, (outer + 0.03, 3.2)], closed=False)
            else:
                panel = np.array([(0.42, _TOP - 0.02), (0.6 * width, _TOP + 0.1), (outer, _TOP + 0.7), (outer, 3.2)])
            front = np.array([(0.78, 3.2), (0.74, 2.0), (0.54, 1.2)])
            pen.fill(np.concatenate([panel, front]) * (side, 1), edge)
            pen.fill(np.concatenate([np.add(panel, (0.0, 0.03)), np.add(front, (0.05, 0.0))]) * (side, 1), color)
            if clothes.over == "jacket":
                lapel = np.array([(0.48, _TOP), (0.8, 1.24), (0.76, 1.36), (0.88, 1.44), (0.78, 1.9), (0.57, 1.34)])
                pen.fill(lapel * (side, 1), edge)
                pen.fill(((lapel - (0.7, 1.4)) * 0.84 + (0.7, 1.4)) * (side, 1), lighter(color, 0.1))
    elif clothes.over == "dungarees":
        for side in (-1.0, 1.0):
            pen.line([(side * 0.56, _TOP + 0.04), (side * 0.42, 1.6)], 0.15, edge)
            pen.line([(side * 0.56, _TOP + 0.04), (side * 0.42, 1.6)], 0.1, color)
        pen.fill([(-0.5, 1.52), (0.5, 1.52), (0.56, 2.0), (0.8, 3.2), (-0.8, 3.2), (-0.56, 2.0)], edge)
        pen.fill([(-0.46, 1.56), (0.46, 1.56), (0.52, 2.0), (0.76, 3.2), (-0.76, 3.2), (-0.52, 2.0)], color)
        pen.ring(rounded(0, 1.86, 0.24, 0.15, 6.0), 0.035, edge)
        for side in (-1.0, 1.0):
            pen.fill(ellipse(side * 0.41, 1.62, 0.055, 0.055), (226, 190, 84))
    elif clothes.over == "braces":
        for side in (-1.0, 1.0):
            pen.line([(side * 0.5, _TOP + 0.06), (side * 0.62, 3.0)], 0.19, color)
    elif clothes.over == "scarf":
        pen.blob([(-0.62, 0.86), (0, 1.0), (0.6, 0.86), (0.62, 1.06), (0, 1.22), (-0.62, 1.06)], edge)
        pen.blob([(-0.58, 0.86), (0, 1.0), (0.56, 0.86), (0.57, 1.02), (0, 1.17), (-0.57, 1.02)], color)
        pen.fill([(0.3, 1.12), (0.52, 1.06), (0.62, 1.52), (0.4, 1.56)], edge)
        pen.fill([(0.33, 1.12), (0.49, 1.06), (0.58, 1.5), (0.43, 1.53)], color)
        pen.line([(0.4, 1.4), (0.56, 1.37)], 0.05, lighter(color, 0.5))
    elif clothes.over == "necklace":
        for i in range(9):
            t = -0.9 + 1.8 * i / 8
            pen.fill(ellipse(0.5 * math.sin(t), 0.92 + 0.42 * math.cos(t), 0.055, 0.055), color)
    elif clothes.over == "tie":
        pen.fill(mirrored((0.11, 1.12), (0.08, 1.3), (0.23, 2.0), (0, 2.25)), edge)
        pen.fill([(-0.09, 1.14), (0.09, 1.14), (0.06, 1.29), (-0.06, 1.29)], lighter(color, 0.15))
        pen.fill([(-0.05, 1.32), (0.05, 1.32), (0.2, 1.98), (0, 2.19), (-0.2, 1.98)], color)
