"""From the bytes of a picture file to RGB pixels: one decoder, two policies.

Imports Pillow and numpy only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageOps

from facefeat_jax.data import _outside as outside
from facefeat_jax.data import _sample_range as sample_range
from facefeat_jax.data._budget import DECODING as BUDGET
from facefeat_jax.data._budget import MAX_DECODER_BYTES
from facefeat_jax.data._decoder_limits import MAX_SIDE, BadImageError, MeteredFile
from facefeat_jax.data._decoder_memory import is_slow, require_memory, require_sane_headers
from facefeat_jax.data._reasons import Reasons
from facefeat_jax.data._sample_range import in_bands
from facefeat_jax.system.errors import unknown
from facefeat_jax.system.kinds import DecodePolicy, Interpolation
from facefeat_jax.system.runtime import give_back_freed_memory

_FLAT = 8  # levels; a picture of a single colour, reduced, differs in two or three for rounding
_LARGE = 2**26  # bytes for one picture, before which what others have freed is given back: the budget counts it no more

DECODING = 2
"""Raise this number when decoding changes its result, so that cached pictures are decoded again."""

SINGLE_COLOUR = "a single colour: there is nothing to see in it"
REDUCED = "the file's first page, which is read, is marked as a smaller copy of another page (a thumbnail)"
TRANSPARENT = "fully transparent: there is nothing to see in it"
# Leaves out what runs another program (EPS starts Ghostscript), what has no signature, so that junk would pass for it
# (TGA, SPIDER, ...), and what Pillow only has stubs for.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "DIB", "ICO", "QOI", "SGI", "PSD")

_POLICIES = get_args(DecodePolicy)

# Plugins are imported on first use otherwise, by whichever threads come first.
Image.init()


def decode(data: bytes, policy: DecodePolicy, *, notes: list[str] | None = None) -> Image.Image:
    """Decodes a picture file; its content, not its name, decides the format. Of an animation, the first frame.

    Safe to call from several threads; Pillow releases the GIL while it decodes. All threads together take
    `_budget.MAX_DECODER_BYTES` at most; what needs more is refused before it is decoded.

    Args:
      data: the file's bytes.
      policy: `as_notebook` is PIL's `convert("RGB")`: the EXIF orientation is ignored, 16-bit grey is clipped at 255,
        transparency is dropped. `upright` applies the EXIF orientation, scales deeper grey from the range that the
        file states to 8 bits (16 bits without one lose their lower half, which is what Pillow itself does to 16-bit
        colour) and lays transparent pictures on white.
      notes: what is to be said of the picture is added to it: that it is of a single colour, say, or was clipped.

    Returns:
      The picture, mode RGB, loaded.

    Raises:
      BadImageError: the data is empty, cut short, damaged, not a picture, takes more memory or time than is allowed
        (`_decoder_memory`), or, with `upright`, has samples of an unknown range.
      UserError: there is no such policy.
    """
    with decoded(data, policy, notes=notes) as picture:
        return picture


@contextmanager
def decoded(
    data: bytes, policy: DecodePolicy, *, per_row: int = 0, beside: int = 0, notes: list[str] | None = None
) -> Iterator[Image.Image]:
    """Gives a picture as `decode` does, with its share of the memory that all decoding shares.

    Args:
      data: the file's bytes.
      policy: see `decode`.
      per_row: bytes that its user takes beside the picture, for each of its rows.
      beside: bytes that its user takes beside the picture. They are waited for, and no reason to refuse it.
      notes: see `decode`.
    """
    with _Opened(data, per_row, beside) as source:
        with Reasons(data):
            picture = _seen(source, policy, notes)
        del source
        yield picture


def decode_resized(
    data: bytes,
    size: int,
    policy: DecodePolicy,
    *,
    interpolation: Interpolation = "bilinear",
    notes: list[str] | None = None,
) -> np.ndarray:
    """Decodes a picture and resizes it, aspect ratio not kept, as torchvision's `Resize((size, size))` does to PIL's.

    Args:
      data: the file's bytes.
      size: width and height wanted, in pixels.
      policy: see `decode`.
      interpolation: `bilinear` or `bicubic`, both over all the pixels that a new one covers.
      notes: see `decode`.

    Returns:
      uint8 `[size, size, 3]`.

    Raises:
      BadImageError: see `decode`.
      UserError: there is no such policy or interpolation.
    """
    with _Opened(data, 4 * size) as source, Reasons(data):
        picture = _seen(source, policy, notes)
        del source  # where it is another picture, its memory is needed for the resizing
        return resized(picture, size, interpolation)


def pixels_resized(
    picture: Image.Image | np.ndarray,
    size: int,
    policy: DecodePolicy,
    *,
    interpolation: Interpolation = "bilinear",
    notes: list[str] | None = None,
) -> np.ndarray:
    """Does to a picture that is in memory already what `decode_resized` does to a file's bytes.

    Args:
      picture: a PIL image of any mode, or an array `[height, width, 3]`, uint8, RGB.
      size: width and height wanted, in pixels.
      policy: see `decode`.
      interpolation: see `decode_resized`.
      notes: see `decode`.

    Returns:
      uint8 `[size, size, 3]`.

    Raises:
      BadImageError: the array is of another shape or type, or the image can't be converted.
      UserError: there is no such policy or interpolation.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3 or 0 in picture.shape:
            raise BadImageError(f"not uint8 [height, width, 3], but {picture.dtype} {list(picture.shape)}")
        rgb = Image.fromarray(np.ascontiguousarray(picture))
    elif not isinstance(picture, Image.Image):
        raise BadImageError(f"not a picture: {type(picture).__name__}")
    else:
        with Reasons(b""):
            if max(picture.size) > MAX_SIDE:
                raise BadImageError(f"too large: {picture.width} by {picture.height} pixels")
            picture.load()
            rgb = _to_rgb(_Source(picture), policy, notes)
    if notes is not None and is_single_colour(rgb):
        notes.append(SINGLE_COLOUR)
    return resized(rgb, size, interpolation)


def check(
    data: bytes,
    *,
    notes: list[str] | None = None,
    see: Callable[[DecodePolicy, Image.Image], object] | None = None,
    per_row: int = 0,
) -> str:
    """Decodes a picture, once, and converts it under both policies, to see that it can be.

    Where nobody sees the pixels, all data of a JPEG is decoded, but to a picture of an eighth of its sides: what is
    damaged is found in the data, and a third of the time is saved.

    Args:
      data: the file's bytes.
      notes: see `decode`; each is there once.
      see: called with each policy and what `decode` gives under it, if given.
      per_row: see `decoded`.

    Returns:
      The format that its content has, in Pillow's naming (`JPEG`, `PNG`, `WEBP`, ...).

    Raises:
      BadImageError: see `decode`.
    """
    found: list[str] = []
    judged: Image.Image | None = None
    with _Opened(data, per_row, reduced=see is None) as source, Reasons(data):
        for policy in _POLICIES:
            picture = _to_rgb(source, policy, found)
            if picture is not judged and is_single_colour(picture):
                found.append(SINGLE_COLOUR)
            judged = picture
            if see is not None:
                see(policy, picture)
        form = source.image.format or ""
        is_flat = source.is_reduced and all(high - low < _FLAT for low, high in _extremes(picture))
    if is_flat:  # whether it is of a single colour shows in the whole picture alone
        return check(data, notes=notes, see=lambda policy, picture: None, per_row=per_row)
    if notes is not None:
        notes += dict.fromkeys(found)
    return form


def is_single_colour(picture: Image.Image) -> bool:
    """Returns whether nothing is to be seen in a picture, mode RGB: all its pixels are the same."""
    # Nearly all pictures differ in a few pixels already.
    width, height = picture.size
    pixels = picture.load()
    assert pixels is not None
    few = (pixels[width * n // 8, height * (5 * n % 8) // 8] == pixels[0, 0] for n in range(1, 8))
    return all(few) and all(low == high for low, high in _extremes(picture))


def _extremes(picture: Image.Image) -> list[tuple[int, int]]:
    """Returns the lowest and the highest value of each band; some rows at a time, for Pillow copies each band."""
    rows = max(1, 2**20 // picture.width)
    parts = (
        picture.crop((0, top, picture.width, min(picture.height, top + rows))) for top in range(0, picture.height, rows)
    )
    bands = zip(*(part.getextrema() for part in parts), strict=True)
    return [(min(low for low, _ in band), max(high for _, high in band)) for band in bands]


class _Source(NamedTuple):
    """A loaded picture as Pillow reads it."""

    image: Image.Image  # the picture, of any mode
    data: bytes = b""  # its file, or empty
    has_deep_colour: bool = False  # whether the file has 16 bits a sample of which Pillow reads the upper half
    is_reduced: bool = False  # whether it is smaller than what the file holds


class _Opened:
    """A context that gives the picture as Pillow reads it, loaded, with its share of the memory.

    Args:
      data: the file.
      per_row: see `decoded`.
      beside: see `decoded`.
      reduced: whether a smaller picture of all the data is as good, where the decoder can make one.
    """

    def __init__(self, data: bytes, per_row: int = 0, beside: int = 0, *, reduced: bool = False):
        self._data, self._per_row, self._beside, self._reduced = data, per_row, beside, reduced

    def __enter__(self) -> _Source:
        data = self._data
        if not data:
            raise BadImageError("empty file")
        if form := outside.form_of(data):
            needed = MAX_DECODER_BYTES  # how much it takes is not known
        else:
            with Reasons(data):
                segments = require_sane_headers(data)
                file = MeteredFile(data)
                image: Image.Image = Image.open(file, formats=_FORMATS)
                needed = require_memory(image, data, per_row=self._per_row, segments=segments)
                sample_range.require_full_range(image)
                if is_slow(image):
                    file.left = sys.maxsize  # Python's decoders read byte by byte
        self._share = BUDGET.holding(needed if form else needed + self._beside)
        self._share.__enter__()
        try:
            if needed >= _LARGE:
                give_back_freed_memory()
            if form:
                return _Source(outside.decoded(data, form), data)
            with Reasons(data):
                is_reduced = self._reduced and image.draft(None, (1, 1)) is not None
                source = _Source(image, data, sample_range.has_deep_colour(image), is_reduced)
                image.load()
                if source.has_deep_colour:
                    sample_range.halve_transparent_colour(image)
            return source
        except BaseException:
            self._share.__exit__(None, None, None)
            raise

    def __exit__(self, *error: Any) -> None:
        self._share.__exit__(*error)


def resized(image: Image.Image, size: int, interpolation: Interpolation) -> np.ndarray:
    """Returns a picture, mode RGB, as uint8 `[size, size, 3]`; see `decode_resized`."""
    if interpolation not in get_args(Interpolation):
        raise unknown("interpolation", interpolation, get_args(Interpolation))
    return np.asarray(image.resize((size, size), Image.Resampling[interpolation.upper()]))


def _seen(source: _Source, policy: DecodePolicy, notes: list[str] | None) -> Image.Image:
    """Returns what `decode` does of a loaded picture."""
    picture = _to_rgb(source, policy, notes)
    if notes is not None and is_single_colour(picture):
        notes.append(SINGLE_COLOUR)
    return picture


def _to_rgb(source: _Source, policy: DecodePolicy, notes: list[str] | None) -> Image.Image:
    """Returns a loaded picture as RGB: itself, where that is what it is."""
    if policy not in _POLICIES:
        raise unknown("decode policy", policy, _POLICIES)
    said: list[str] = []
    image = source.image
    if policy == "upright":
        picture = _turned(image)
        if sample_range.is_deep(image):
            picture, more = sample_range.to_8_bits(picture, image, source.data)
            said += more
        if picture.has_transparency_data:
            picture, opaque = _on_white(picture)
            said += [] if opaque else [TRANSPARENT]
    else:
        picture = image
        if notes is not None and sample_range.is_deep(image):
            said += sample_range.lost_by_clipping(image)
        if notes is not None and image.mode in ("RGBA", "LA") and not image.getchannel("A").getextrema()[1]:
            said.append(TRANSPARENT)
    if picture.mode != "RGB":
        picture = in_bands(picture, "RGB", lambda band: band.convert("RGB"))
    if notes is not None:
        if _is_reduced(image):
            said.append(REDUCED)
        if source.has_deep_colour and max(high for _, high in _extremes(picture)) < 32:
            said.append(sample_range.DARK)
        notes += said
    return picture


def _is_reduced(image: Image.Image) -> bool:
    """Returns whether a TIFF's page, the first, is marked as a reduced form of another (NewSubfileType)."""
    kind = (getattr(image, "tag_v2", None) or {}).get(254, 0)
    return isinstance(kind, int) and bool(kind & 1)


def _turned(image: Image.Image) -> Image.Image:
    """Returns a picture turned as its EXIF says."""
    # Broken EXIF is common and no reason to lose a picture that decodes.
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
    except Exception:
        return image


def _on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns a transparent picture on white, and whether there is anything of it to be seen."""
    highest = 0

    def laid(band: Image.Image) -> Image.Image:
        nonlocal highest
        layer = band.convert("RGBA")
        highest = max(highest, layer.getchannel("A").getextrema()[1])  # type: ignore[assignment]
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")

    return in_bands(image, "RGB", laid), highest > 0
