"""Pictures of more than eight bits a sample: from which value to which they go, and what of them is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from facefeat_jax.data._decoder_limits import BadImageError

DARK = "all samples lie below an eighth of the 16-bit range: they may have fewer bits, so the picture is too dark"
CLIPPED = "16-bit samples above 255 are clipped to white, as the baseline does"
WHOLE_NUMBERS = "32-bit samples are clipped to 0..255, as the baseline does"
FLOATS = "floating-point samples are cut to whole numbers and clipped to 0..255, as the baseline does"
NEGATIVE = "0 means white in this file, so it is read as its negative, as the baseline does"

_ADVICE = "save it with 8 bits a sample"
_BAND_PIXELS = 2**20  # converted at a time


def is_deep(image: Image.Image) -> bool:
    """Returns whether Pillow keeps a picture in more than eight bits: one band of whole numbers or floats."""
    return image.mode[0] in "IF"


def has_deep_colour(image: Image.Image) -> bool:
    """Returns whether a picture that is not loaded has 16 bits a sample of which Pillow reads the upper half."""
    return not is_deep(image) and any("16" in str(getattr(tile, "args", "")) for tile in getattr(image, "tile", ()))


def halve_transparent_colour(image: Image.Image) -> None:
    """Makes the colour that a loaded picture with deep colour calls transparent one of the upper halves, as it is."""
    colour = image.info.get("transparency")
    if isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def require_full_range(image: Image.Image) -> None:
    """Refuses 16-bit colour that states a smaller range: what Pillow reads of it, the upper half, is not the picture.

    Raises:
      BadImageError: it does.
    """
    tags = getattr(image, "tag_v2", None) or {}
    most = _first(tags.get(281))
    if most is not None and 0 < most < 2**15 and has_deep_colour(image):
        raise BadImageError(f"16-bit colour whose samples go up to {most:,.0f}, which is not supported; {_ADVICE}")


def lost_by_clipping(image: Image.Image) -> list[str]:
    """Returns what `convert("RGB")` loses of a deep picture."""
    low, high = image.getextrema()
    notes = []
    if image.mode == "F":
        notes.append(FLOATS)
    elif low < 0 or high > 255:  # type: ignore[operator]
        notes.append(WHOLE_NUMBERS if image.mode == "I" and _bits(image) > 16 else CLIPPED)
    if _counts_from_white(image):
        notes.append(NEGATIVE)
    return notes


def in_bands(image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Returns a picture made from another one, some rows at a time: what is made on the way takes little memory.

    Args:
      image: loaded.
      mode: mode of the new picture.
      change: makes a band of rows of the new picture from one of the old.
    """
    rows = max(1, _BAND_PIXELS // image.width)
    if rows >= image.height:
        return change(image)
    made = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        made.paste(change(image.crop((0, top, image.width, min(image.height, top + rows)))), (0, top))
    return made


def to_8_bits(picture: Image.Image, source: Image.Image, data: bytes) -> tuple[Image.Image, list[str]]:
    """Returns a deep picture in mode L, scaled from the range that its file states, and what is to be said of it.

    16 bits that state no other range lose their lower half, which is what Pillow itself does to 16-bit colour. Where
    the file says that one level is transparent, it is mode LA.

    Args:
      picture: loaded; perhaps turned.
      source: as Pillow opened it.
      data: its file, or empty.

    Raises:
      BadImageError: nothing says what range the samples have.
    """
    low, high = _stated_range(source, data)
    if not math.isfinite(high - low) or high <= low:
        raise BadImageError(f"the stated range of samples, {low:g} to {high:g}, is not valid; {_ADVICE}")
    highest = -math.inf
    negative = _counts_from_white(source)
    transparent = source.info.get("transparency")
    mode = "LA" if isinstance(transparent, int) else "L"

    def scaled(band: Image.Image) -> Image.Image:
        nonlocal highest
        samples = np.asarray(band)
        highest = max(highest, float(samples.max()))
        grey = Image.fromarray(_scaled(samples, low, high, negative=negative))
        if mode == "LA":
            grey.putalpha(Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8)))
        return grey

    grey = in_bands(picture, mode, scaled)
    is_dark = picture.mode != "F" and highest < low + (high - low) / 8
    return grey, [DARK] if is_dark else []


def _scaled(samples: np.ndarray, low: float, high: float, *, negative: bool) -> np.ndarray:
    if samples.dtype.kind == "f":
        share = (np.nan_to_num(samples.astype(np.float64), nan=low) - low) / (high - low)
        levels = np.clip(np.rint(share * 255), 0, 255)
    else:
        # As a shift where the range is a power of two.
        levels = np.clip((samples.astype(np.int64) - int(low)) * 256 // (int(high) - int(low) + 1), 0, 255)
    return ((255 - levels) if negative else levels).astype(np.uint8)


def _stated_range(image: Image.Image, data: bytes) -> tuple[float, float]:
    """Returns the samples that stand for black and white."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        # SMaxSampleValue and SMinSampleValue may have any type, MaxSampleValue has 16 bits.
        stated = (_first(tags.get(number)) for number in (341, 281))
        high = next((value for value in stated if value is not None), None)
        if high is not None:
            return _first(tags.get(340)) or 0.0, high
        if image.mode != "F" and _sample_format(image) == 1 and _bits(image) <= 16:
            return 0, 2 ** _bits(image) - 1
    elif image.mode == "F":
        pass  # a PFM, or made in memory
    elif image.format == "PNG":
        return 0, _significant(image, data)
    elif image.mode != "I" or image.format == "PPM":
        return 0, 0xFFFF  # Pillow has scaled PNM by its maxval and JPEG 2000 by its precision
    kind = "floating-point" if image.mode == "F" else "signed" if _bits(image) <= 16 else "32-bit"
    raise BadImageError(f"{kind} samples without a stated range; {_ADVICE}")


def _significant(image: Image.Image, data: bytes) -> int:
    """Returns the highest sample of a 16-bit PNG: sBIT may say that fewer bits are meant.

    The format asks for such samples to be scaled up to 16 bits, and nothing is to be done then. Many programs write
    them as they are: then all lie below what sBIT says, and not all of the bits below it are empty.
    """
    at = data.find(b"sBIT", 8, data.find(b"IDAT"))
    bits = data[at + 4] if at > 0 else 16
    if not 1 <= bits < 16:
        return 0xFFFF
    samples = np.asarray(image)
    return 2**bits - 1 if samples.max() < 2**bits and (samples & (2 ** (16 - bits) - 1)).any() else 0xFFFF


def _first(value: Any) -> float | None:
    value = value[0] if isinstance(value, tuple) and value else value
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _tag(image: Image.Image, number: int, default: int) -> int:
    if image.format != "TIFF":
        return default
    return int(_first(image.tag_v2.get(number)) or 0) if number in image.tag_v2 else default  # type: ignore[attr-defined]


def _bits(image: Image.Image) -> int:
    return _tag(image, 258, 32 if image.mode == "I" and image.format != "PPM" else 16)


def _sample_format(image: Image.Image) -> int:
    return _tag(image, 339, 1)


def _counts_from_white(image: Image.Image) -> bool:
    return _tag(image, 262, 1) == 0
