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


def _colors(text: str) -> tuple[Color, ...]:
    """Returns colours that are written as on web pages, in hexadecimal."""
    return tuple((value[0], value[1], value[2]) for value in map(bytes.fromhex, text.split()))


SKINS: dict[str, tuple[Color, ...]] = {
    "light": _colors("ffe0c8 fad4ba"),
    "tan": _colors("eebe96 e2ae82"),
    "brown": _colors("c68c62 b0764e"),
    "dark": _colors("925e3e 7a4e36"),
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
BEARD_COLORS = _colors("221c20 422a20 683e24 964622 ce9c50 96969a ece8e2 be3c28 78222c")
LIP_COLORS = _colors("ce1834 e23c6c ff96aa 96164a e25a3c 962882")
FRAME_COLORS = _colors("16161a 46281a c4983c bec2ca be1e28 2446aa 1e6e50 f5f5f0 6e2878")
IRIS_COLORS = _colors("462c1c 2c5a96 40784a 785428 5a626c")
# Clothes, walls and things that are none of the eight colours.
NEUTRALS = _colors("808288 c4baa6 485468 623c70 d6cec4 e28432 3c8c92")
BACKDROPS = _colors("c4d6e2 e4dac8 aabeaa 788296 d6bebe 565c68 f0eee8 967864 343c50")


def shade(name: str, along: tuple[float, float, float]) -> Color:
    """Returns the shade of a shirt colour that lies `along` (0 to 1) its ranges of hue, saturation and value."""
    h, s, v = (low + (high - low) * t for (low, high), t in zip(SHIRT_SHADES[name], along, strict=True))
    r, g, b = colorsys.hsv_to_rgb((h % 360) / 360, s, v)
    return round(r * 255), round(g * 255), round(b * 255)


def mix(a: Color, b: Color, part: float) -> Color:
    """Returns `a` with this part of `b` in it."""
    red, green, blue = (round(x + (y - x) * part) for x, y in zip(a, b, strict=True))
    return red, green, blue


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
