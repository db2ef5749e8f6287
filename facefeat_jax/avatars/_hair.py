"""Draws hair, hats and earrings. None of it says anything about a label."""

from __future__ import annotations

import math

import numpy as np

from facefeat_jax.avatars._face import draw_glasses, outline
from facefeat_jax.avatars._palette import Color, darker, lighter
from facefeat_jax.avatars._parts import Eyewear, Face, Hair
from facefeat_jax.avatars._pen import Pen, ellipse, mirrored, rounded, smooth

_COVERING = ("beanie", "cap", "sunhat", "headscarf")


def draw_back_hair(pen: Pen, face: Face, hair: Hair) -> None:
    """Draws what lies behind neck and shoulders; the pen's frame is the head's."""
    if hair.hat == "headscarf":
        pen.blob(mirrored((0, -1.15), (0.9, -0.4), (1.05, 0.7), (0.8, 1.35)), darker(hair.hat_color, 0.25))
        return
    color, v, w = darker(hair.color, 0.3), hair.volume, face.width
    if hair.style == "bob":
        pen.blob(mirrored((0, -1.1), (w + 0.14, -0.2), (w + 0.2 * v, 0.72), (0, 0.9)), color)
    elif hair.style == "long":
        pen.blob(mirrored((0, -1.15), (w + 0.1, -0.3), (w + 0.2 * v, 0.9), (w + 0.05, 1.75)), color)
    elif hair.style == "wavy":
        upper = [(0, -1.15), (w + 0.12, -0.4), (w + 0.3 * v, 0.1), (w + 0.18, 0.45)]
        pen.blob(mirrored(*upper, (w + 0.38 * v, 0.85), (w + 0.2, 1.2), (w + 0.28, 1.6)), color)
    elif hair.style == "ponytail":
        pen.blob([(0.55, -0.75), (1.15, -0.75), (1.35 * v, 0.1), (1.15, 0.8), (0.95, 0.2), (0.7, -0.3)], color)
        pen.fill(ellipse(0.8, -0.62, 0.13, 0.13), hair.hat_trim)
    elif hair.style == "pigtails":
        for side in (-1.0, 1.0):
            tail = smooth([(0.8, -0.5), (1.15, -0.45), (1.4 * v, 0.2), (1.2, 0.85), (1.0, 0.3)])
            pen.fill(tail * (side, 1), color)
            pen.fill(ellipse(side * 0.92, -0.42, 0.12, 0.12), hair.hat_trim)
    elif hair.style == "afro":
        for a in np.linspace(0, 2 * np.pi, 15, endpoint=False):
            if math.sin(a) < 0.75:
                pen.fill(ellipse(1.02 * v * math.cos(a), -0.22 + 0.95 * v * math.sin(a), 0.33, 0.33), hair.color)
    elif hair.style == "curly":
        for a in np.linspace(-0.25, np.pi + 0.25, 10):
            x, y = (w + 0.06) * math.cos(a), -0.1 - (face.height + 0.02) * math.sin(a)
            pen.fill(ellipse(x, y, 0.26 * v, 0.26 * v), color)
    elif hair.style == "bun" and hair.hat not in _COVERING:
        pen.fill(ellipse(0.08, -1.14, 0.34 * v, 0.3 * v), color)
        pen.fill(ellipse(0.08, -1.16, 0.3 * v, 0.26 * v), hair.color)


def _crown(face: Face, low: float, grow: float, hairline: list[tuple[float, float]]) -> np.ndarray:
    """Returns the hair's cap: over the top of the head between angles `low` below the ears' line, then the hairline."""
    over = np.linspace(np.pi - low, 2 * np.pi + low, 26)
    return np.concatenate([outline(face, over, grow), smooth(hairline, closed=False)])


def draw_front_hair(pen: Pen, face: Face, hair: Hair) -> None:
    """Draws the hair on the head; the pen's frame is the head's."""
    if hair.hat == "headscarf":
        return
    style, color, w, h = hair.style, hair.color, face.width, face.height
    edge, shine = darker(color, 0.3), lighter(color, 0.28)
    if style == "bald":
        pen.fill(ellipse(-0.3, -0.66 * h, 0.16, 0.07), lighter(face.color, 0.6), 0.7)
        return
    if style == "buzz":
        line = mirrored((0.9 * w, -0.2), (0.72 * w, -0.5 * h), (0.3 * w, -0.6 * h))
        pen.fill(_crown(face, -0.15, 0.02, line), color, 0.78)
        return
    if style == "mohawk":
        if hair.hat not in _COVERING:
            crest = mirrored((0.0, -1.38 * hair.volume), (0.1, -1.05), (0.24, -1.2), (0.26, -0.5 * h))
            pen.fill(crest, edge)
            pen.fill([(x * 0.8, y + 0.03) for x, y in crest], color)
        return
    thick = {"quiff": 0.1, "afro": 0.08, "curly": 0.08}.get(style, 0.07) * hair.volume
    low = {"bob": 0.5, "long": 0.55, "wavy": 0.45, "short": 0.05, "side_part": 0.1, "quiff": 0.0}.get(style, 0.08)
    if style == "curly":
        for a in np.linspace(0.35, np.pi - 0.35, 8):
            pen.fill(ellipse(0.86 * w * math.cos(a), -0.78 * h * math.sin(a) - 0.06, 0.24, 0.22), edge)
        for a in np.linspace(0.3, np.pi - 0.3, 8):
            pen.fill(ellipse(0.87 * w * math.cos(a), -0.85 * h * math.sin(a) - 0.05, 0.2, 0.19), color)
        return
    line = _hairline(hair, w, h, side=(0.86 - 0.1 * min(low, 0.4)) * w)
    pen.fill(_crown(face, low, thick + 0.025, line), edge)
    pen.fill(_crown(face, low, thick, [(x, y - 0.035) for x, y in line]), color)
    if style == "quiff":
        left = [(-0.62 * w, -0.6 * h), (-0.5, -1.2), (0.1, -1.38 * hair.volume)]
        pen.blob([*left, (0.72, -1.12), (0.66 * w, -0.62 * h), (0, -0.72 * h)], color)
        pen.stroke([(-0.35, -1.0), (0.1, -1.18), (0.5, -1.02)], 0.06, shine, 0.8)
    elif style != "afro":
        pen.stroke([(-0.5 * w, -0.72 * h), (-0.15, -0.9 * h), (0.3 * w, -0.86 * h)], 0.07, shine, 0.7, (0.3, 0.3))
    if style in ("long", "wavy"):
        sway = 0.12 if style == "wavy" else 0.0
        outer = [(0.8 * w, 0.1), (w + 0.08, 0.0), (w + 0.1 + sway, 0.6), (w + 0.02 - sway, 1.1)]
        lock = smooth([*outer, (w - 0.04, 1.6), (w - 0.2, 1.3), (w - 0.12 + sway, 0.8)])
        for side in (-1.0, 1.0):
            pen.fill(lock * (side, 1), color)
            strand = [(side * (w - 0.02), 0.3), (side * (w + sway), 0.8), (side * (w - 0.06), 1.3)]
            pen.stroke(strand, 0.035, edge, 0.7)


def _hairline(hair: Hair, w: float, h: float, *, side: float) -> list[tuple[float, float]]:
    """Returns the hair's edge on a face of half this width and height; at its ends it is `side` from the middle."""
    style, drop = hair.style, 0.2 * hair.fringe * h
    if style in ("short", "quiff", "afro"):
        return mirrored((side, 0.0), (0.74 * w, -0.42 * h), (0.3 * w, -0.62 * h + drop))
    if style == "bob" or (style in ("long", "pigtails") and hair.fringe > 0.5):
        return mirrored((side, 0.42), (0.8 * w, -0.05), (0.7 * w, -0.36 * h), (0.0, -0.44 * h))
    if style in ("side_part", "ponytail", "bun"):
        right = [(side, 0.02), (0.78 * w, -0.3 * h), (0.4 * w, -0.5 * h + 0.5 * drop)]
        return [*right, (-0.3 * w, -0.72 * h), (-0.55 * w, -0.56 * h), (-0.78 * w, -0.3 * h), (-side, 0.0)]
    right = [(side, 0.42), (0.82 * w, -0.05), (0.6 * w, -0.45 * h), (0.08 * w, -0.8 * h)]
    return [*right, (-0.55 * w, -0.5 * h), (-0.82 * w, -0.05), (-side, 0.42)]


def draw_hat(pen: Pen, face: Face, hair: Hair, spare: Eyewear) -> None:
    """Draws what is on the head, and earrings; `spare` is the pair of spectacles that is pushed up into the hair."""
    color, w, h = hair.hat_color, face.width, face.height
    edge: Color = darker(color, 0.3) if sum(color) > 120 else (80, 80, 90)
    if hair.earrings and hair.hat != "headscarf":
        for side in (-1.0, 1.0):
            pen.fill(ellipse(side * (w + 0.05), 0.38, 0.07, 0.08), (232, 196, 88))
    if hair.hat == "beanie":
        pen.blob(mirrored((0, -1.28 * h), (0.75 * w, -1.05 * h), (w + 0.08, -0.45 * h), (0, -0.5 * h)), color)
        pen.fill(rounded(0, -0.52 * h, w + 0.09, 0.14, 4.0), edge)
        for i in range(-4, 5):
            pen.line([(i * 0.2, -0.62 * h), (i * 0.2, -0.42 * h)], 0.03, color)
        pen.fill(ellipse(0, -1.32 * h, 0.19, 0.17), hair.hat_trim)
    elif hair.hat == "cap":
        pen.blob(mirrored((0, -1.2 * h), (0.8 * w, -1.0 * h), (w + 0.05, -0.42 * h), (0, -0.55 * h)), color)
        pen.stroke([(0.05, -1.15 * h), (0.12, -0.85 * h), (0.1, -0.55 * h)], 0.03, edge)
        peak = [(-0.75 * w, -0.52 * h), (0.1, -0.66 * h), (w, -0.5 * h), (1.3 * w, -0.36 * h), (0.2, -0.44 * h)]
        pen.blob(peak, edge)
        pen.fill(ellipse(0.05, -0.86 * h, 0.13, 0.12), hair.hat_trim)
    elif hair.hat == "sunhat":
        pen.blob(mirrored((0, -1.28 * h), (0.62 * w, -1.15 * h), (0.8 * w, -0.55 * h)), color)
        pen.fill(ellipse(0, -0.56 * h, w + 0.5, 0.2), edge)
        pen.fill(ellipse(0, -0.59 * h, w + 0.48, 0.18), color)
        band = mirrored((0, -0.58 * h), (0.8 * w, -0.66 * h), (0.76 * w, -0.82 * h), (0, -0.75 * h))
        pen.blob(band, hair.hat_trim)
    elif hair.hat == "headband":
        over = smooth(mirrored((-0.93 * w, -0.38 * h), (-0.5 * w, -0.62 * h), (0, -0.7 * h)), closed=False)
        pen.line(over, 0.15, color)
        pen.line(np.add(over, (0, 0.05)), 0.03, edge)
    elif hair.hat == "headscarf":
        around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        rim, hole = outline(face, around, 0.16), outline(face, around, -0.1) * (0.98, 0.93) + (0, 0.02)
        pen.ring(0.5 * (rim + hole), 0.27, edge)
        pen.ring(0.5 * (rim + hole) * 1.02, 0.23, color)
        pen.blob(mirrored((0, 0.98), (0.7, 0.9), (0.72, 1.12), (0, 1.24)), color)
        pen.stroke([(-0.55, 1.0), (0, 1.11), (0.5, 0.99)], 0.04, edge)
    elif hair.hat == "spectacles":
        draw_glasses(pen, face, spare, y=-0.78 * h, small=0.86)
