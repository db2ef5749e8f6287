"""The colours of the drawings."""

from __future__ import annotations

import colorsys

Color = tuple[int, int, int]
Range = tuple[float, float]

# What counts as which shirt colour: ranges of hue (degrees), saturation and value, with gaps between them, so that
# light casts make neighbours look different still.
SHIRT_SHADES: dict[str, tuple[Range, Range, Range]] = {
    "black": ((0, 360), (0.0, 0.25), (0.04, 0.15)),
    "blue": ((206, 232), (0.56, 0.95), (0.50, 0.94)),
    "brown": ((20, 30), (0.52, 0.70), (0.33, 0.47)),
    "green": ((104, 145), (0.52, 0.88), (0.44, 0.78)),
    "pink": ((325, 346), (0.31, 0.50), (0.88, 1.00)),
    "red": ((352, 364), (0.80, 0.96), (0.62, 0.92)),
    "white": ((0, 360), (0.0, 0.05), (0.91, 1.00)),
    "yellow": ((46, 55), (0.68, 0.96), (0.86, 1.00)),
}

SKINS: dict[str, tuple[Color, ...]] = {
    "light": ((255, 224, 200), (250, 212, 186)),
    "tan": ((238, 190, 150), (226, 174, 130)),
    "brown": ((198, 140, 98), (176, 118, 78)),
    "dark": ((146, 94, 62), (122, 78, 54)),
}

HAIR_COLORS: dict[str, Color] = {
    "black": (34, 28, 32),
    "dark_brown": (66, 42, 32),
    "brown": (112, 70, 42),
    "auburn": (150, 66, 36),
    "blond": (226, 184, 104),
    "grey": (146, 146, 150),
    "white": (232, 228, 222),
    "dyed": (0, 0, 0),  # replaced by one of the shirt colours
}

BEARD_COLORS: tuple[Color, ...] = (
    (34, 28, 32),
    (66, 42, 32),
    (104, 62, 36),
    (150, 70, 34),
    (206, 156, 80),
    (150, 150, 154),
    (236, 232, 226),
    (190, 60, 40),
    (120, 34, 44),
)
LIP_COLORS: tuple[Color, ...] = (
    (206, 24, 52),
    (226, 60, 108),
    (255, 150, 170),
    (150, 22, 74),
    (226, 90, 60),
    (150, 40, 130),
)
FRAME_COLORS: tuple[Color, ...] = (
    (22, 22, 26),
    (70, 40, 26),
    (196, 152, 60),
    (190, 194, 202),
    (190, 30, 40),
    (36, 70, 170),
    (30, 110, 80),
    (245, 245, 240),
    (110, 40, 120),
)
IRIS_COLORS: tuple[Color, ...] = ((70, 44, 28), (44, 90, 150), (64, 120, 74), (120, 84, 40), (90, 98, 108))
# Clothes, walls and things that are none of the eight colours.
NEUTRALS: tuple[Color, ...] = (
    (128, 130, 136),
    (196, 186, 166),
    (72, 84, 104),
    (98, 60, 112),
    (214, 206, 196),
    (226, 132, 50),
    (60, 140, 146),
)
BACKDROPS: tuple[Color, ...] = (
    (196, 214, 226),
    (228, 218, 200),
    (170, 190, 170),
    (120, 130, 150),
    (214, 190, 190),
    (86, 92, 104),
    (240, 238, 232),
    (150, 120, 100),
    (52, 60, 80),
)


def shade(name: str, along: tuple[float, float, float]) -> Color:
    """Returns the shade of a shirt colour that lies `along` (0 to 1) its ranges of hue, saturation and value."""
    h, s, v = (low + (high - low) * t for (low, high), t in zip(SHIRT_SHADES[name], along, strict=True))
    r, g, b = colorsys.hsv_to_rgb((h % 360) / 360, s, v)
    return round(r * 255), round(g * 255), round(b * 255)


def mix(a: Color, b: Color, part: float) -> Color:
    """Returns `a` with this part of `b` in it."""
    return (
        round(a[0] + (b[0] - a[0]) * part),
        round(a[1] + (b[1] - a[1]) * part),
        round(a[2] + (b[2] - a[2]) * part),
    )


def darker(color: Color, part: float = 0.25) -> Color:
    """Returns the colour in shadow: darker, and a little towards violet as shadows are."""
    return mix(color, (24, 10, 34), part)


def lighter(color: Color, part: float = 0.25) -> Color:
    """Returns the colour in the light."""
    return mix(color, (255, 250, 240), part)


def luma(color: Color) -> float:
    """Returns how light the colour is, 0 to 255."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def apart(a: Color, b: Color) -> float:
    """Returns the contrast of two colours: mostly by lightness, some by hue."""
    return abs(luma(a) - luma(b)) + 0.25 * sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 3
