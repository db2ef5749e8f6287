"""What decoding a file may take in memory and time: read from its headers, before Pillow decodes it.

Width times height says little: a TIFF of a thousand bytes may want one tile of two gigabytes, and a JPEG of 400 kB have
two thousand scans. The figures per pixel are peaks of a process that decoded pictures of nine million pixels, noise
and smooth (Pillow 13); docs/predict.md lists what is refused.
"""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from facefeat_jax.system.errors import UserError

MAX_PIXELS = 89_478_485
"""Largest width times height that is decoded: Pillow's own mark for a decompression bomb."""

MAX_SIDE = 65_535
"""Largest width or height, JPEG's own: a resize makes a picture of the new width and the old height on its way."""

MAX_DECODER_BYTES = 2**30
"""The most that one picture may take for decoding."""

MAX_SLOW_PIXELS = 4_000_000
"""Largest width times height of forms whose decoder is written in Python: about a second per million pixels."""

MAX_ICON_PIXELS = 12_000_000
"""Largest width times height of a picture in an ICO file, which Pillow decodes as it opens it."""

_MOST_SCANS = 100  # of a JPEG; encoders write about ten, and each walks over the whole picture
_MOST_SEGMENTS = 10_000  # of a JPEG
_MOST_COMMENTS = 100  # in a plain PNM: Pillow copies what follows for each of them
_MOST_COVERED = 4 * MAX_PIXELS  # pixels of all tiles of a TIFF or JPEG 2000, which may reach outside the picture
_MOST_TILES = 16_384

# Bytes per pixel that Pillow keeps a picture in. All other modes take four.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}

# Bytes per pixel that a decoder takes beside that, measured on noise. Others take a few lines.
_DECODER = {"WEBP": 19, "AVIF": 16, "ICO": 8, "GIF": 2, "SGI": 3, "PSD": 2}
_PYTHON_DECODER = 8  # whole picture as a bytearray, and once more as bytes


class BadImageError(UserError):
    """The bytes are not a picture that can be decoded; the message is the short reason, without the file's name."""


class Budget:
    """Bytes that several threads share: who wants more than is left waits, in the order of asking.

    Args:
      most: that are given out at a time.
    """

    def __init__(self, most: int):
        self._most = most
        self._held = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Holds so many bytes; more than there are at all count as all of them."""
        count = min(count, self._most)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._held + count <= self._most)
            self._held += count
        try:
            yield
        finally:
            with self._changed:
                self._held -= count
                self._changed.notify_all()


# Less than the most of one picture, which then decodes alone: what several leave behind in the heap comes on top.
BUDGET = Budget(MAX_DECODER_BYTES * 3 // 4)
"""The one that all decoding of this process shares."""


class MeteredFile(io.BytesIO):
    """A file in memory that gives up on whoever reads it in crumbs: headers of a million parts take minutes in Python.

    Attributes:
      is_metered: whether reads are counted.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.is_metered = True
        self._left = 20_000 + len(data) // 256

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= self.is_metered
        if self._left < 0:
            raise BadImageError("too slow to decode: it consists of more and smaller parts than any picture")
        return super().read(size)


def require_sane_headers(data: bytes) -> None:
    """Refuses what would take long, or much memory, before Pillow says how large the picture is.

    Raises:
      BadImageError: it would.
      struct.error: a header is cut short.
    """
    if data.startswith(b"\0\0\1\0"):
        _require_small_icon(data)
    elif data.startswith(b"\xff\xd8"):
        _require_few_scans(data)
    elif re.match(rb"P[123]\s", data) and data.count(b"#") > _MOST_COMMENTS:
        raise BadImageError(f"too slow to decode: a plain PNM with more than {_MOST_COMMENTS} comments")


def require_memory(image: Image.Image, data: bytes, *, per_row: int = 0) -> int:
    """Returns the bytes that decoding an opened picture and converting it to RGB takes, at most.

    Args:
      image: as `Image.open` gives it, not loaded.
      data: the file.
      per_row: what its user takes beside it, in bytes for each of its rows.

    Raises:
      BadImageError: more than `MAX_DECODER_BYTES`, or the picture is larger or slower to decode than is allowed.
    """
    width, height = image.size
    pixels = width * height
    size = f"{width} by {height} pixels"
    if pixels > MAX_PIXELS:
        raise too_large(size, MAX_PIXELS)
    if max(width, height) > MAX_SIDE:
        raise BadImageError(f"too large: {size}, no side may have more than {MAX_SIDE:,}")
    form = image.format or ""
    decoder = _DECODER.get(form, 0) * pixels
    if is_slow(image):
        if pixels > MAX_SLOW_PIXELS:
            raise BadImageError(
                f"too slow to decode: {size} of this form of {form}, the limit is {MAX_SLOW_PIXELS // 10**6} million; "
                "save it as PNG"
            )
        decoder = _PYTHON_DECODER * pixels
    if form in ("JPEG", "MPO"):
        decoder = _jpeg_bytes(data)
    elif form == "TIFF":
        decoder = _tiff_bytes(image)
    elif form == "JPEG2000":
        decoder = _jpeg2000_bytes(data)
    stored = _STORED.get(image.mode, 4) * pixels
    # Turned, it is there twice; converted, as RGB beside the original, and from more than eight bits as grey too (which
    # takes as much as RGB where a level of it is transparent).
    grey = 0 if image.mode[0] not in "IF" else 4 if "transparency" in image.info else 1
    converted = 0 if image.mode == "RGB" else (4 + grey) * pixels
    turned = stored if _is_turned(image, data) else 0
    needed = len(data) + stored + max(decoder, turned + converted + per_row * max(height, width if turned else 0))
    if needed > MAX_DECODER_BYTES:
        raise BadImageError(
            f"too large: {size} of {form} in mode {image.mode} take {needed / 2**30:.1f} GiB to decode, "
            f"the limit is {MAX_DECODER_BYTES / 2**30:.0f}"
        )
    return needed


def is_slow(image: Image.Image) -> bool:
    """Returns whether an opened picture's decoder works pixel by pixel in Python."""
    return any(tile.codec_name in Image.DECODERS and tile.codec_name != "SGI16" for tile in image.tile)  # type: ignore[attr-defined]


def too_large(what: str, limit: int) -> BadImageError:
    """Returns the error for a picture of too many pixels."""
    return BadImageError(f"too large: {what}, the limit is {limit // 10**6} million pixels")


def _is_turned(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":  # whose EXIF may come last: to find it, Pillow would decode the picture
        return _has_png_metadata(data)
    if image.format != "TIFF" and not any(name in image.info for name in ("exif", "xmp")):
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


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the marker and the place of each segment up to the end of the first picture; damage ends it."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return
        yield marker, at
        # Markers without a length: TEM, SOI.
        at += 0 if marker in (0x01, 0xD8) else int.from_bytes(data[at : at + 2], "big")


def _require_few_scans(data: bytes) -> None:
    scans, components = 0, 0
    for number, (marker, at) in enumerate(_jpeg_segments(data)):
        if number > _MOST_SEGMENTS:
            raise BadImageError(f"too slow to decode: a JPEG of more than {_MOST_SEGMENTS:,} segments")
        if marker in _FRAMES:
            components = 0 if marker in (0xC2, 0xC6, 0xCA, 0xCE) else data[at + 7]
        elif marker == 0xDA:
            scans += 1
            if scans == 1 and components and data[at + 2] == components:
                return  # one scan holds all, and the decoder reads no further
            if scans > _MOST_SCANS:
                raise BadImageError(f"too slow to decode: a JPEG of more than {_MOST_SCANS} scans")


def _jpeg_bytes(data: bytes) -> int:
    """Returns what libjpeg keeps of a picture of several scans: all coefficients, two bytes each, in whole blocks."""
    coefficients, components, is_progressive = 0, 0, False
    for marker, at in _jpeg_segments(data):
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            sampling = [divmod(data[at + 9 + 3 * number], 16) for number in range(components)]
            if not all(across and down for across, down in sampling):
                raise BadImageError("damaged (a component without samples)")
            across, down = (max((pair[i] for pair in sampling), default=1) for i in (0, 1))
            blocks = -(-width // (8 * across)) * -(-height // (8 * down))
            coefficients = 64 * blocks * sum(a * d for a, d in sampling)
            is_progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
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


# --- JPEG 2000


def _jpeg2000_bytes(data: bytes) -> int:
    """Returns what OpenJPEG takes: two whole numbers for every sample, and its tables of blocks and precincts."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise BadImageError("damaged (no codestream)")
    x1, y1, x0, y0, tile_x, tile_y, _, _, components = struct.unpack_from(">8IH", data, start + 8)
    width, height = x1 - x0, y1 - y0
    tiles = -(-width // max(1, tile_x)) * -(-height // max(1, tile_y))
    if tiles > _MOST_TILES:
        raise BadImageError(f"too slow to decode: {tiles:,} tiles, the limit is {_MOST_TILES:,}")
    samples = width * height * components
    return int(samples * _JPEG2000_PER_SAMPLE) + _jpeg2000_tables(data, start, samples)


_JPEG2000_PER_SAMPLE = 5.5
_BLOCK_BYTES, _PRECINCT_BYTES = 430, 480


def _jpeg2000_tables(data: bytes, start: int, samples: int) -> int:
    """Returns the bytes of the tables; they grow where blocks or precincts are made smaller than encoders make them."""
    most = 0.0
    at = start + 2
    for _ in range(_MOST_TILES * 4):
        if at + 14 > len(data):
            break
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFF90:  # a part of a tile; its header may choose anew
            (size,) = struct.unpack_from(">I", data, at + 6)
            if data[at + 12 : at + 14] in (b"\xff\x52", b"\xff\x53"):
                raise BadImageError("too slow to decode: JPEG 2000 whose tiles are coded in different ways")
            if size == 0 or at + size >= len(data):
                break
            at += size
            continue
        if marker == 0xFFD9:
            break
        if marker in (0xFF52, 0xFF53):
            # COD: style, progression, layers, transform, then the same as COC has after its component and style.
            body = at + 4 + (5 if marker == 0xFF52 else 2)
            style = data[at + 4] if marker == 0xFF52 else data[at + 5]
            levels, block = data[body], (data[body + 1] + 2, data[body + 2] + 2)
            table = 0.0
            for level in range(levels + 1):
                sides = divmod(data[body + 5 + level] if style & 1 else 0xFF, 16)
                share = samples / 4 ** (levels - level)
                # Above the lowest level a precinct has half its sides in each of three bands; blocks end where it does.
                within = (max(0, side - (level > 0)) for side in reversed(sides))
                blocks = share * (0.75 if level else 1) / 2 ** sum(map(min, block, within))
                table += blocks * _BLOCK_BYTES + share / 2 ** sum(sides) * _PRECINCT_BYTES
            most = max(most, table)
        at += 2 + length
    return int(most)
