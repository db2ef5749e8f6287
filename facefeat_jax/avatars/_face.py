"""Draws the face, with the cues of the labels gender and glasses."""

from __future__ import annotations

import numpy as np

from facefeat_jax.avatars._dice import Dice
from facefeat_jax.avatars._palette import Color, darker, lighter, luma, mix
from facefeat_jax.avatars._parts import Eyewear, Face, Lashes, Whiskers
from facefeat_jax.avatars._pen import Pen, ellipse, mirrored, rounded, smooth

EYE_Y = 0.06
BROW_Y = -0.25
NOSE_Y = 0.30
MOUTH_Y = 0.58
_INK: Color = (36, 24, 30)
_ANGLES = np.linspace(0.0, 2.0 * np.pi, 44, endpoint=False)


def outline(face: Face, angles: np.ndarray = _ANGLES, grow: float = 0.0) -> np.ndarray:
    """Returns points of the face's edge at these angles (0 is the right, a quarter turn the chin)."""
    c, s = np.cos(angles), np.sin(angles)
    x = (face.width + grow) * np.sign(c) * np.abs(c) ** 0.86
    y = (face.height + grow) * s
    return np.stack([x * (1.0 - face.jaw * np.maximum(s, 0.0) ** 2), y], axis=1)


def draw_head(head: Pen, pen: Pen, face: Face, turn: float) -> None:
    """Draws ears and the bare face; `head` is the head's frame, `pen` the face's (shifted by the turn)."""
    skin, shadow = face.color, darker(face.color, 0.25)
    for side in (-1.0, 1.0):
        x = side * (face.width + 0.03) - 0.1 * turn
        size = face.ears * (1.0 - 0.3 * max(0.0, side * turn))
        head.fill(ellipse(x, 0.12, 0.15 * size, 0.22 * size), shadow)
        head.fill(ellipse(x, 0.12, 0.125 * size, 0.195 * size), skin)
        head.fill(ellipse(x, 0.13, 0.06 * size, 0.11 * size), shadow, 0.6)
    head.fill(outline(face, grow=0.025), shadow)
    head.fill(outline(face), skin)
    # The far cheek lies in shadow: the edge and an inner curve, so that it stays inside the face.
    half = np.linspace(-0.9, 1.45, 16)
    edge = outline(face, half)
    side = -1.0 if turn > 0 else 1.0
    head.fill(np.concatenate([edge, (edge * (0.72, 0.97))[::-1]]) * (side, 1.0), shadow, 0.35)
    if face.chin_shade:
        lower = np.linspace(0.25, np.pi - 0.25, 16)
        edge = outline(face, lower)
        head.fill(np.concatenate([edge, (edge * (0.62, 0.55))[::-1]]), shadow, face.chin_shade)
    if face.blush:
        for side in (-1.0, 1.0):
            pen.fill(ellipse(side * 0.52, 0.42, 0.17, 0.11), (240, 90, 90), face.blush)


def draw_marks(pen: Pen, face: Face, dice: Dice) -> None:
    """Draws freckles, paint, a plaster, rings under the eyes or a mask: what isn't spectacles."""
    color = face.marks_color
    if face.marks == "freckles":
        for _ in range(12):
            side = dice.pick((-1.0, 1.0))
            x, y = side * dice.uniform(0.15, 0.6), dice.uniform(0.26, 0.46)
            pen.fill(ellipse(x, y, 0.025, 0.025), darker(face.color, 0.45))
    elif face.marks == "war_paint":
        for side in (-1.0, 1.0):
            for y in (0.34, 0.46):
                pen.line([(side * 0.28, y), (side * 0.68, y - 0.05)], 0.065, color)
    elif face.marks == "plaster":
        side = dice.pick((-1.0, 1.0))
        plaster = pen.frame(side * 0.46, 0.42, angle=dice.uniform(-0.6, 0.6))
        plaster.fill(rounded(0, 0, 0.2, 0.075, 4.0), lighter(mix(face.color, (236, 190, 150), 0.6), 0.35))
        plaster.fill(rounded(0, 0, 0.07, 0.07, 5.0), (250, 236, 220))
    elif face.marks == "shadows":
        for side in (-1.0, 1.0):
            pen.fill(ellipse(side * face.eye_gap, EYE_Y + 0.05, 0.27, 0.26), darker(face.color, 0.5), 0.5)
    elif face.marks == "mask":
        gap = face.eye_gap
        # Whole across the nose and wide of the eyes, which tells it from a frame.
        edge = [(0, -0.2), (gap, -0.3), (0.86, -0.32), (0.78, 0.2), (gap, 0.36), (0.12, 0.26), (0, 0.24)]
        half = smooth(edge, closed=False)
        pen.fill(np.concatenate([half, half[::-1] * (-1, 1)]), color)
        for side in (-1.0, 1.0):
            pen.fill(ellipse(side * gap, EYE_Y, 0.215, 0.17), face.color)


def draw_patch(pen: Pen, face: Face, dice: Dice) -> None:
    """Draws an eye-patch over one eye (the other keeps its cues)."""
    if face.marks == "patch":
        side = dice.pick((-1.0, 1.0))
        color = mix(face.marks_color, _INK, 0.6)
        pen.line([(-side * 0.6, -0.5), (side * face.eye_gap, EYE_Y - 0.04), (side * 0.84, 0.16)], 0.05, color)
        edge = ((-0.22, -0.13), (0.22, -0.13), (0.17, 0.14), (0, 0.22), (-0.17, 0.14))
        pen.blob([(side * (face.eye_gap + x), EYE_Y + y) for x, y in edge], color)


def draw_eyes(pen: Pen, face: Face) -> None:
    """Draws the eyes, without lashes and brows."""
    for side in (-1.0, 1.0):
        eye = pen.frame(side * face.eye_gap, EYE_Y, (face.eye_size, face.eye_size))
        if face.eyes == "dot":
            eye.fill(ellipse(0, 0, 0.09, 0.115), _INK)
            eye.fill(ellipse(-0.03, -0.045, 0.032, 0.035), (255, 255, 255))
        elif face.eyes == "closed":
            eye.stroke([(-0.17, 0.03), (0, -0.07), (0.17, 0.03)], 0.055, _INK, taper=(0.6, 0.6))
        else:
            rx, ry = (0.17, 0.175) if face.eyes == "round" else (0.195, 0.13)
            x, y = 0.05 * face.gaze[0], 0.03 * face.gaze[1]
            eye.fill(ellipse(0, 0, rx + 0.022, ry + 0.022), darker(face.color, 0.5))
            eye.fill(ellipse(0, 0, rx, ry), (250, 250, 248))
            eye.fill(ellipse(x, y, 0.105, 0.11), face.iris)
            eye.fill(ellipse(x, y, 0.058, 0.06), (18, 14, 18))
            eye.fill(ellipse(x - 0.04, y - 0.045, 0.034, 0.034), (255, 255, 255))


def draw_nose(pen: Pen, face: Face) -> None:
    """Draws the nose."""
    shadow = darker(face.color, 0.35)
    if face.nose == "button":
        pen.stroke([(-0.09, NOSE_Y), (0, NOSE_Y + 0.07), (0.09, NOSE_Y)], 0.045, shadow)
    elif face.nose == "long":
        pen.stroke([(0.02, 0.1), (0.09, NOSE_Y), (-0.06, NOSE_Y + 0.05)], 0.045, shadow)
    else:
        pen.fill(ellipse(0, NOSE_Y, 0.13, 0.085), shadow, 0.75)
        pen.fill(ellipse(0, NOSE_Y - 0.02, 0.12, 0.08), lighter(face.color, 0.12))


def _smile(face: Face) -> tuple[float, float]:
    """Returns how far the mouth's corners go up, left and right."""
    return {"smile": (0.09, 0.09), "open": (0.07, 0.07), "calm": (0.0, 0.0), "smirk": (0.0, 0.11)}[face.mouth]


_EYE_SIZES = {"round": (0.18, 0.18), "almond": (0.205, 0.14), "dot": (0.13, 0.14), "closed": (0.17, -0.03)}


def draw_feminine_cues(pen: Pen, face: Face, lashes: Lashes) -> None:
    """Draws what this data set calls female: lashes, thin arched brows, painted lips."""
    rx, ry = _EYE_SIZES[face.eyes]
    for side in (-1.0, 1.0):
        eye = pen.frame(side * face.eye_gap, EYE_Y, (side * face.eye_size, face.eye_size))
        if face.eyes == "closed":
            lid = [(-rx, 0.03), (0.0, -0.07), (rx, 0.03), (rx + 0.08, 0.06)]
            roots, down = [(0.0, -0.04), (0.09, -0.02), (0.17, 0.04), (0.22, 0.06)], 1.0
        else:
            lid = [(-rx, 0.02), (-0.5 * rx, -0.86 * ry), (0.2 * rx, -ry), (0.86 * rx, -0.5 * ry), (rx + 0.07, -0.07)]
            roots, down = [(rx + 0.02, -0.06), (0.86 * rx, -0.55 * ry), (0.45 * rx, -0.9 * ry), (-0.1 * rx, -ry)], -1.0
        eye.stroke(lid, 0.065, _INK, taper=(0.4, 1.0))
        for i, (x, y) in enumerate(roots[: lashes.count]):
            reach = lashes.length * (1.0 - 0.12 * i) if down < 0 else 0.7 * lashes.length
            lean = (1.0, 0.75, 0.42, 0.12)[i] if down < 0 else (0.1, 0.35, 0.6, 0.9)[i]
            tip = (x + reach * lean, y + down * reach * (1.05 - 0.6 * lean))
            eye.line([(x, y), tip], 0.05, _INK, taper=(1.0, 0.35))
        brow = [(0.02 - 0.2, BROW_Y + 0.02), (0.08, BROW_Y - lashes.arch), (0.3, BROW_Y + 0.05)]
        pen.frame(side * face.eye_gap, 0.0, (side, 1.0)).stroke(brow, lashes.brow, (70, 44, 36), taper=(0.9, 0.3))
    left, right = _smile(face)
    w, h, y = 0.25 * lashes.fullness, 0.105 * lashes.fullness, MOUTH_Y
    deep = darker(lashes.lips, 0.4)
    bow = mirrored((-0.45 * w, y - 0.8 * h), (-0.12 * w, y - h), (0, y - 0.75 * h))
    lower = mirrored((0.55 * w, y + 0.75 * h), (0, y + 1.1 * h))
    pen.blob([(-w, y - left), *bow, (w, y - right), *lower], lashes.lips)
    if face.mouth == "open":
        teeth = [(-0.7 * w, y - 0.5 * left), (0, y - 0.25 * h), (0.7 * w, y - 0.5 * right), (0, y + 0.5 * h)]
        pen.blob(teeth, (250, 248, 244))
    else:
        pen.stroke([(-0.9 * w, y - left), (0, y + 0.05 * h), (0.9 * w, y - right)], 0.035, deep)
    pen.stroke([(-0.3 * w, y + 0.62 * h), (0.3 * w, y + 0.62 * h)], 0.03, lighter(lashes.lips, 0.5), 0.8)


def draw_masculine_cues(pen: Pen, head: Pen, face: Face, whiskers: Whiskers) -> None:
    """Draws what this data set calls male: heavy straight brows, whiskers, unpainted lips."""
    color, kind = whiskers.color, whiskers.kind
    edge = darker(color, 0.3) if luma(color) > 60 else lighter(color, 0.18)
    if kind in ("beard", "stubble"):
        lower = np.linspace(0.12, np.pi - 0.12, 20)
        rim = outline(face, lower, grow=0.05 if kind == "beard" else -0.01)
        hollow = smooth(mirrored((-0.66 * face.width, 0.30), (-0.45, 0.44), (-0.2, 0.40), (0, 0.42)), closed=False)
        if kind == "beard":
            head.fill(np.concatenate([outline(face, lower, grow=0.09), hollow]), edge)
        head.fill(np.concatenate([rim, hollow]), color, 1.0 if kind == "beard" else 0.42)
    if kind == "goatee":
        chin = face.height
        pen.blob(mirrored((0, 0.4), (0.3, 0.44), (0.32, 0.72), (0.2, chin - 0.04), (0, chin + 0.03)), color)
        pen.fill(ellipse(0, MOUTH_Y + 0.01, 0.21, 0.1), face.color)
    _draw_plain_mouth(pen, face)
    half = {"handlebar": _HANDLEBAR, "stubble": _STUBBLE}.get(kind, _MOUSTACHE)
    pen.blob(mirrored(*((x * whiskers.size, y) for x, y in half)), color, 0.8 if kind == "stubble" else 1.0)
    if kind in ("moustache", "beard"):
        for x in (-0.12, 0.12):
            pen.line([(x, 0.42), (2.0 * x, 0.51)], 0.025, edge, 0.8)
    up = whiskers.slant
    brow = [(-0.22, BROW_Y + 0.03), (0.06, BROW_Y - 0.02 - up), (0.28, BROW_Y + 0.05 - up)]
    for side in (-1.0, 1.0):
        pen.frame(side * face.eye_gap, 0.0, (side, 1.0)).stroke(brow, whiskers.brow, color, taper=(0.9, 0.55))


# The right half of what grows on the upper lip.
_MOUSTACHE = ((0.0, 0.38), (0.17, 0.39), (0.34, 0.5), (0.38, 0.6), (0.2, 0.545), (0.0, 0.5))
_HANDLEBAR = (
    *((0.0, 0.4), (0.2, 0.4), (0.36, 0.5), (0.48, 0.4), (0.5, 0.26)),
    *((0.57, 0.42), (0.42, 0.58), (0.18, 0.53), (0.0, 0.49)),
)
_STUBBLE = ((0.0, 0.41), (0.2, 0.43), (0.26, 0.5), (0.0, 0.48))


def _draw_plain_mouth(pen: Pen, face: Face) -> None:
    left, right = _smile(face)
    y = MOUTH_Y
    lip = mix(darker(face.color, 0.35), (190, 50, 50), 0.5)
    if face.mouth == "open":
        upper = [(-0.21, y - 0.6 * left), (0, y - 0.02), (0.21, y - 0.6 * right)]
        pen.blob([*upper, (0.12, y + 0.1), (-0.12, y + 0.1)], (110, 36, 40))
        pen.fill(ellipse(0, y + 0.075, 0.1, 0.035), (226, 84, 92))
        pen.fill([(-0.15, y - 0.02), (0.15, y - 0.02), (0.12, y + 0.025), (-0.12, y + 0.025)], (250, 248, 244))
    else:
        pen.stroke([(-0.2, y + 0.03 - left), (0, y + 0.04), (0.2, y + 0.03 - right)], 0.05, lip, taper=(0.6, 0.6))


_LENSES = {
    # shape: (half width, half height, power of the superellipse)
    "round": (0.265, 0.265, 2.0),
    "square": (0.27, 0.23, 5.0),
    "wide": (0.295, 0.19, 4.0),
    "cat_eye": (0.28, 0.21, 2.6),
    "aviator": (0.28, 0.25, 2.5),
    "half_rim": (0.285, 0.2, 3.4),
}


def draw_glasses(
    pen: Pen, face: Face, eyewear: Eyewear, x: float = 0.0, y: float = EYE_Y + 0.01, small: float = 1.0
) -> None:
    """Draws spectacles; `x`, `y` and `small` move them off the eyes, for the pair that is pushed up into the hair."""
    rx, ry, power = _LENSES[eyewear.shape]
    gap = max(face.eye_gap, rx * eyewear.size + 0.06)
    shine = lighter(eyewear.color, 0.35)
    for side in (-1.0, 1.0):
        lens = rounded(0, 0, rx, ry, power) * eyewear.size
        if eyewear.shape == "cat_eye":
            lens = lens + np.stack([0 * lens[:, 0], -0.25 * np.maximum(lens[:, 0], 0) * (lens[:, 1] < 0)], axis=1)
        elif eyewear.shape == "aviator":
            lens = lens * np.stack([1.0 - 0.25 * np.maximum(lens[:, 1] / ry, 0), 1.0 + 0 * lens[:, 1]], axis=1)
        eye = pen.frame(x + side * gap * small, y, (side * small, small))
        if eyewear.lens == "dark":
            eye.fill(lens, (26, 26, 34), 0.82)
        elif eyewear.lens == "tinted":
            eye.fill(lens, eyewear.lens_color, 0.32)
        else:
            eye.fill(lens, (226, 240, 250), 0.16)
        if eyewear.glare:
            glare = [(-0.12, 0.1), (0.04, -0.14), (0.11, -0.14), (-0.05, 0.1)]
            pen.frame(x + side * gap * small, y, (small, small)).fill(glare, (255, 255, 255), 0.42)
        if eyewear.shape == "half_rim":
            top = np.concatenate([lens[14:], lens[:1]])
            eye.line(top, 1.5 * eyewear.thickness, eyewear.color)
            eye.ring(lens, 0.4 * eyewear.thickness, eyewear.color, 0.8)
        else:
            eye.ring(lens, eyewear.thickness, eyewear.color)
        temple = [(rx * eyewear.size, -0.05), (max(face.width - gap - 0.02, rx + 0.05), -0.09)]
        eye.line(temple, 0.9 * eyewear.thickness, eyewear.color)
        eye.line([(rx * eyewear.size - 0.02, -0.06), (rx * eyewear.size + 0.03, -0.07)], 0.5 * eyewear.thickness, shine)
    inner = (gap - rx * eyewear.size) * small + 0.02
    bridge = [(x - inner, y), (x, y - 0.06 * small), (x + inner, y)]
    pen.stroke(bridge, 0.9 * eyewear.thickness * small, eyewear.color)
