"""What decoding a file may take in memory and time: read from its headers, before Pillow decodes it.

Width times height says little: a TIFF of a thousand bytes may want one tile of two gigabytes, and a JPEG of 400 kB have
two thousand scans. The figures per pixel are peaks of a process that decoded pictures of nine million pixels, noise
and smooth (Pillow 13); docs/predict.md lists what is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from PIL import Image

from facefeat_jax.data._budget import MAX_DECODER_BYTES
from facefeat_jax.data._codestreams import avif_coded_pixels, jpeg2000_bytes
from facefeat_jax.data._decoder_limits import (
    MAX_ICON_PIXELS,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_SLOW_PIXELS,
    BadImageError,
    too_large,
)
from facefeat_jax.system.text import format_size

_MOST_SCANS = 100  # of a JPEG; encoders write about ten, and each walks over the whole picture
_MOST_SEGMENTS = 10_000  # of a JPEG
_MOST_COMMENTS = 100  # in a plain PNM: Pillow copies what follows for each of them
_MOST_COVERED = 4 * MAX_PIXELS  # pixels of all tiles of a TIFF or JPEG 2000, which may reach outside the picture

# Bytes per pixel that Pillow keeps a picture in. All other modes take four.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}

# Bytes per pixel that a decoder takes beside that, measured on noise. Others take a few lines.
_DECODER = {"WEBP": 19, "AVIF": 16, "ICO": 8, "GIF": 2, "SGI": 3, "PSD": 2}
_PYTHON_DECODER = 8  # whole picture as a bytearray, and once more as bytes


def require_sane_headers(data: bytes) -> list[_Segment]:
    """Refuses what would take long, or much memory, before Pillow says how large the picture is.

    Returns:
      A JPEG's segments as far as its first scan, for `require_memory`; of other formats none.

    Raises:
      BadImageError: it would.
      struct.error: a header is cut short.
    """
    if data.startswith(b"\0\0\1\0"):
        _require_small_icon(data)
    elif data.startswith(b"\xff\xd8"):
        return _first_segments(data)
    elif re.match(rb"P[123]\s", data) and data.count(b"#") > _MOST_COMMENTS:
        raise BadImageError(f"too slow to decode: a plain PNM with more than {_MOST_COMMENTS} comments")
    return []


def require_memory(
    image: Image.Image, data: bytes, *, per_row: int = 0, segments: Sequence[_Segment] | None = None
) -> int:
    """Returns the bytes that decoding an opened picture and converting it to RGB takes, at most.

    Args:
      image: as `Image.open` gives it, not loaded.
      data: the file.
      per_row: what its user takes beside it, in bytes for each of its rows.
      segments: what `require_sane_headers` returned, where it was called.

    Raises:
      BadImageError: more than `MAX_DECODER_BYTES`, or the picture is larger or slower to decode than is allowed.
    """
    width, height = image.size
    pixels = width * height
    if pixels > MAX_PIXELS:
        raise too_large(_said(image), MAX_PIXELS)
    if max(width, height) > MAX_SIDE:
        raise BadImageError(f"too large: {_said(image)}, no side may have more than {MAX_SIDE:,}")
    form = image.format or ""
    decoder = _DECODER.get(form, 0) * pixels
    if is_slow(image):
        if pixels > MAX_SLOW_PIXELS:
            raise BadImageError(
                f"too slow to decode: {_said(image)} of this form of {form}, "
                f"the limit is {MAX_SLOW_PIXELS // 10**6} million; save it as PNG"
            )
        decoder = _PYTHON_DECODER * pixels
    if form in ("JPEG", "MPO"):
        decoder = _jpeg_bytes(data, _first_segments(data) if segments is None else segments)
    elif form == "TIFF":
        decoder = _tiff_bytes(image)
    elif form == "JPEG2000":
        decoder = jpeg2000_bytes(data)
    elif form == "AVIF":
        # Mostly colour and alpha, whose sizes add up to twice the picture's.
        decoder = _DECODER[form] * max(pixels, avif_coded_pixels(data) // 2)
    stored = _STORED.get(image.mode, 4) * pixels
    # Turned, it is there twice; converted, as RGB beside the original, and from more than eight bits as grey too (which
    # takes as much as RGB where a level of it is transparent).
    grey = 0 if image.mode[0] not in "IF" else 4 if "transparency" in image.info else 1
    converted = 0 if image.mode == "RGB" else (4 + grey) * pixels
    turned = stored if _is_turned(image, data) else 0
    needed = len(data) + stored + max(decoder, turned + converted + per_row * max(height, width if turned else 0))
    if needed > MAX_DECODER_BYTES:
        raise BadImageError(
            f"too large: {_said(image)} of {form} in mode {image.mode} take {format_size(needed)} to decode, "
            f"the limit is {format_size(MAX_DECODER_BYTES)}"
        )
    return needed


def _said(image: Image.Image) -> str:
    return f"{image.width} by {image.height} pixels"


def is_slow(image: Image.Image) -> bool:
    """Returns whether an opened picture's decoder works pixel by pixel in Python."""
    return any(tile.codec_name in Image.DECODERS and tile.codec_name != "SGI16" for tile in image.tile)  # type: ignore[attr-defined]


def _is_turned(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":  # whose EXIF may come last: to find it, Pillow would decode the picture
        return _has_png_metadata(data)
    if image.format != "TIFF" and "exif" not in image.info and "xmp" not in image.info:
        return False
    try:
        return image.getexif().get(0x0112, 1) != 1
    except Exception:  # broken EXIF turns nothing
        return False


def _has_png_metadata(data: bytes) -> bool:
    at = 8
    for _ in range(_MOST_SEGMENTS):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name in (b"eXIf", b"tEXt", b"iTXt", b"zTXt"):
            return True
        if at >= len(data):
            return False
        at += 12 + length
    return True


def _require_small_icon(data: bytes) -> None:
    """Refuses an ICO whose pictures are larger than any icon: Pillow decodes one as it opens it, before we see a size.

    Its table of contents has a byte for each side; what counts is in the PNG or BMP headers that it points to.
    """
    (count,) = struct.unpack_from("<H", data, 4)
    for number in range(count):
        (at,) = struct.unpack_from("<I", data, 6 + 16 * number + 12)
        is_png = data[at : at + 8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack_from(">II", data, at + 16) if is_png else struct.unpack_from("<ii", data, at + 4)
        if abs(width * height) > MAX_ICON_PIXELS:
            raise too_large(f"an icon of {abs(width)} by {abs(height)} pixels", MAX_ICON_PIXELS)


# --- JPEG

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


_Segment = tuple[int, int]
"""Of a JPEG: its marker, and where its content begins."""


def _jpeg_segments(data: bytes) -> Iterator[_Segment]:
    """Yields the segments up to the end of the first picture; damage ends it."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return
        yield marker, at
        # Markers without a length: TEM, SOI.
        at += 0 if marker in (0x01, 0xD8) else int.from_bytes(data[at : at + 2], "big")


def _first_segments(data: bytes) -> list[_Segment]:
    """Returns the segments as far as the first scan; refuses what has too many of them, or too many scans."""
    first: list[_Segment] = []
    scans, components = 0, 0
    for number, (marker, at) in enumerate(_jpeg_segments(data)):
        if number > _MOST_SEGMENTS:
            raise BadImageError(f"too slow to decode: a JPEG of more than {_MOST_SEGMENTS:,} segments")
        if not scans:
            first.append((marker, at))
        if marker in _FRAMES:
            components = 0 if marker in _PROGRESSIVE else data[at + 7]
        elif marker == 0xDA:
            scans += 1
            if scans == 1 and components and data[at + 2] == components:
                break  # one scan holds all, and the decoder reads no further
            if scans > _MOST_SCANS:
                raise BadImageError(f"too slow to decode: a JPEG of more than {_MOST_SCANS} scans")
    return first


def _jpeg_bytes(data: bytes, segments: Sequence[_Segment]) -> int:
    """Returns what libjpeg keeps of a picture of several scans: all coefficients, two bytes each, in whole blocks."""
    coefficients, components, is_progressive = 0, 0, False
    for marker, at in segments:
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            sampling = [divmod(data[at + 9 + 3 * number], 16) for number in range(components)]
            if not all(across and down for across, down in sampling):
                raise BadImageError("damaged (a component without samples)")
            across, down = (max((pair[i] for pair in sampling), default=1) for i in (0, 1))
            blocks = -(-width // (8 * across)) * -(-height // (8 * down))
            coefficients = 64 * blocks * sum(a * d for a, d in sampling)
            is_progressive = marker in _PROGRESSIVE
        elif marker == 0xDA:
            if not components:
                raise BadImageError("damaged (a scan before the frame that describes it)")
            return 2 * coefficients if is_progressive or data[at + 2] != components else 0
    return 0


# --- TIFF


def _tiff_bytes(image: Image.Image) -> int:
    """Returns the bytes of a strip or tile, which libtiff unpacks as a whole."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = image.size
    bits = tags.get(258, (1,))
    samples = int(tags.get(277, 1))
    per_pixel = max(bits) * max(samples, len(bits)) / 8
    if 322 in tags or 323 in tags:
        across, down = int(tags[322]), int(tags[323])
        if across < 1 or down < 1:
            raise BadImageError("damaged (tiles without a size)")
        count = -(-width // across) * -(-height // down)
        if count * across * down > _MOST_COVERED:
            raise BadImageError(f"too large: {count:,} tiles of {across} by {down} pixels")
    else:
        across, down = width, min(int(tags.get(278, height)), height)
    # Compressed, a strip is read as a whole too, but is part of the file.
    return int(across * down * per_pixel)
