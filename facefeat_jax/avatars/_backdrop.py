"""Draws what is behind the figure and what comes before it."""

from __future__ import annotations

import math

import numpy as np

from facefeat_jax.avatars._dice import Dice
from facefeat_jax.avatars._palette import Color, darker, lighter, mix
from facefeat_jax.avatars._parts import Backdrop, Face, Occlusion
from facefeat_jax.avatars._pen import Pen, ellipse, rounded, smooth


def _box(x: float, y: float, w: float, h: float) -> np.ndarray:
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])


def draw_backdrop(pen: Pen, backdrop: Backdrop, dice: Dice) -> None:
    """Draws the wall and the things before it; the pen's frame is the picture, 0 to 1."""
    wall, accents = backdrop.color, backdrop.accents
    if backdrop.kind == "plain":
        tone = darker(wall, 0.18)
        slant = dice.uniform(0.2, 0.8)
        pen.fill([(0, slant), (1, 1 - slant), (1, 1), (0, 1)], tone, 0.5)
    elif backdrop.kind == "stripes":
        width = dice.uniform(0.06, 0.16)
        stripes = pen.frame(0.5, 0.5, angle=dice.uniform(-1.5, 1.5))
        for i in range(-6, 7):
            stripes.fill(_box(2 * i * width, -0.9, width, 1.8), mix(wall, accents[0], 0.55))
    elif backdrop.kind == "tiles":
        size = dice.uniform(0.13, 0.24)
        count = math.ceil(1 / size)
        seam = size * 0.08
        for i in range(count):
            for j in range(count):
                pen.fill(
                    _box(i * size + seam, j * size + seam, size - 2 * seam, size - 2 * seam),
                    mix(darker(wall, 0.1), accents[int(dice.unit() * 5)], 0.45 if dice.chance(0.4) else 0.0),
                )
    elif backdrop.kind == "bokeh":
        for _ in range(9):
            spot = ellipse(dice.unit(), dice.unit(), *(dice.uniform(0.05, 0.14),) * 2)
            pen.fill(spot, lighter(dice.pick(accents), 0.2), dice.uniform(0.3, 0.7))
    elif backdrop.kind == "window":
        x, y, w, h = dice.uniform(-0.1, 0.5), dice.uniform(-0.1, 0.15), dice.uniform(0.4, 0.6), dice.uniform(0.5, 0.7)
        pen.fill(_box(x - 0.03, y - 0.03, w + 0.06, h + 0.06), lighter(wall, 0.5))
        pen.fill(_box(x, y, w, h), (178, 214, 240))
        pen.fill(ellipse(x + 0.3 * w, y + 0.35 * h, 0.12, 0.05), (245, 248, 250))
        pen.fill(_box(x, y + 0.7 * h, w, 0.3 * h), mix(accents[0], (120, 160, 110), 0.5))
        pen.fill(_box(x + w / 2 - 0.015, y, 0.03, h), lighter(wall, 0.5))
    elif backdrop.kind == "shelf":
        for row in range(2):
            base = dice.uniform(0.24, 0.36) + 0.4 * row
            pen.fill(_box(0, base, 1, 0.03), darker(wall, 0.4))
            x = dice.uniform(0.0, 0.06)
            while x < 1:
                w, h = dice.uniform(0.04, 0.09), dice.uniform(0.12, 0.22)
                if dice.chance(0.75):
                    pen.fill(_box(x, base - h, w, h), dice.pick(accents))
                    pen.fill(_box(x, base - 0.7 * h, w, 0.02), lighter(wall, 0.3), 0.8)
                x += w + 0.008
    else:
        pen.fill(ellipse(dice.unit(), dice.uniform(0.05, 0.3), 0.09, 0.09), lighter(accents[0], 0.3))
        for i, level in enumerate((0.45, 0.62)):
            y = level + dice.uniform(-0.08, 0.08)
            ridge = [(-0.2, y), (0.2, y - dice.uniform(0, 0.15)), (0.6, y + dice.uniform(0, 0.1)), (1.2, y - 0.05)]
            pen.fill([*smooth(ridge, closed=False), (1.2, 1.1), (-0.2, 1.1)], mix(wall, accents[i + 1], 0.6))
    for i in range(backdrop.things):
        _draw_thing(pen, dice, accents[i])


def _draw_thing(pen: Pen, dice: Dice, color: Color) -> None:
    """Draws a patch of colour: a ball, a picture on the wall, a leaf, a pair of rings."""
    x, y, size = dice.unit(), dice.unit(), dice.uniform(0.05, 0.12)
    kind = dice.pick(("ball", "frame", "leaf", "rings"))
    local = pen.frame(x, y, (size, size), dice.uniform(-0.5, 0.5))
    if kind == "ball":
        local.fill(ellipse(0, 0, 1, 1), color)
        local.fill(ellipse(-0.35, -0.35, 0.25, 0.25), lighter(color, 0.6), 0.8)
    elif kind == "frame":
        local.fill(_box(-1, -1.2, 2, 2.4), darker(color, 0.4))
        local.fill(_box(-0.8, -1, 1.6, 2), color)
        local.fill(ellipse(0, 0.2, 0.4, 0.5), lighter(color, 0.5))
    elif kind == "leaf":
        for angle in (-0.7, 0.0, 0.7):
            local.frame(angle=angle).fill(smooth([(0, 1), (-0.35, 0), (0, -1.4), (0.35, 0)]), darker(color, 0.15))
    else:
        # Two rings side by side look like spectacles, but nobody wears them.
        for side in (-1.0, 1.0):
            local.ring(ellipse(0.85 * side, 0, 0.7, 0.7), 0.25, darker(color, 0.3))


def draw_occlusion(pen: Pen, occlusion: Occlusion, face: Face) -> None:
    """Draws a hand, a bar or a blob before the figure; the pen's frame is the head's, unturned."""
    if occlusion.kind == "hand":
        hand = pen.frame(occlusion.x, occlusion.y, (occlusion.size, occlusion.size), occlusion.angle)
        shadow = darker(face.color, 0.28)
        hand.fill([(-0.17, 0.2), (0.17, 0.2), (0.22, 2.5), (-0.22, 2.5)], shadow)
        hand.fill([(-0.15, 0.2), (0.15, 0.2), (0.19, 2.5), (-0.19, 2.5)], face.color)
        for color, width in ((shadow, 0.155), (face.color, 0.115)):
            for x, length, spread in ((-0.2, 0.33, -0.16), (-0.07, 0.42, -0.05), (0.07, 0.4, 0.06), (0.19, 0.3, 0.16)):
                tip = (x + spread, -0.1 - length)
                hand.line([(x * 0.8, 0.1), tip], width, color)
                hand.fill(ellipse(*tip, width / 2, width / 2), color)
            hand.line([(0.15, 0.25), (0.42, 0.02)], width, color)
            hand.fill(ellipse(0.42, 0.02, width / 2, width / 2), color)
            grow = 0.02 if color == shadow else 0.0
            hand.fill(rounded(0, 0.12, 0.25 + grow, 0.24 + grow, 2.6), color)
    elif occlusion.kind == "bar":
        bar = pen.frame(occlusion.x, occlusion.y, angle=occlusion.angle)
        half = 0.075 * occlusion.size
        bar.fill(_box(-half, -4, 2 * half, 8), occlusion.color)
        bar.fill(_box(half * 0.2, -4, 0.8 * half, 8), darker(occlusion.color, 0.3))
    elif occlusion.kind == "blob":
        size = 0.36 * occlusion.size
        blob = pen.frame(occlusion.x, occlusion.y, (size, size), occlusion.angle)
        blob.fill(
            smooth([(-1, 0.2), (-0.6, -0.8), (0.3, -1), (1, -0.3), (0.7, 0.8), (-0.3, 0.9)]), occlusion.color, 0.92
        )
        blob.fill(ellipse(-0.2, -0.4, 0.3, 0.18), lighter(occlusion.color, 0.5), 0.6)
