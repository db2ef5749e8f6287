"""What the coded pictures inside JPEG 2000 and AVIF files say of their size.

The boxes around them say so too, and Pillow reports what those say, but decoders allocate what the codestream asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from facefeat_jax.data._decoder_limits import BadImageError

_MOST_PARTS = 10_000  # boxes in a box, units of a codestream: encoders write dozens


def _in_crumbs() -> BadImageError:
    return BadImageError(f"too slow to decode: more than {_MOST_PARTS:,} parts")


# --- Boxes (ISO/IEC 14496-12, and JPEG 2000's, which are the same)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, start and end of the content of each box."""
    for _ in range(_MOST_PARTS):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = min(start + size, end) if size else end
        if stop < content:
            return
        yield name, content, stop
        start = stop
    raise _in_crumbs()


def _found(data: bytes, start: int, end: int, *path: bytes) -> Iterator[tuple[int, int]]:
    """Yields start and end of the content of all boxes at a path of names."""
    for name, content, stop in _boxes(data, start, end):
        if name == path[0]:
            # `meta` has a version before the boxes in it.
            inside = content + 4 if name == b"meta" else content
            yield from _found(data, inside, stop, *path[1:]) if path[1:] else [(content, stop)]


# --- JPEG 2000

_MOST_TILES = 16_384
_BYTES_PER_SAMPLE = 5.5
_BLOCK_BYTES, _PRECINCT_BYTES = 430, 480


def jpeg2000_bytes(data: bytes) -> int:
    """Returns what OpenJPEG takes: two whole numbers for every sample, and its tables of blocks and precincts.

    Raises:
      BadImageError: it has no codestream, or one that is slow to decode.
    """
    start = 0
    if not data.startswith(b"\xff\x4f\xff\x51"):
        start, _ = next(_found(data, 0, len(data), b"jp2c"), (-1, 0))
        if start < 0 or data[start : start + 4] != b"\xff\x4f\xff\x51":
            raise BadImageError("damaged (no codestream)")
    x1, y1, x0, y0, tile_x, tile_y, _, _, components = struct.unpack_from(">8IH", data, start + 8)
    width, height = x1 - x0, y1 - y0
    tiles = -(-width // max(1, tile_x)) * -(-height // max(1, tile_y))
    if tiles > _MOST_TILES:
        raise BadImageError(f"too slow to decode: {tiles:,} tiles, the limit is {_MOST_TILES:,}")
    samples = width * height * components
    return int(samples * _BYTES_PER_SAMPLE) + jpeg2000_tables(data, start, samples)


def jpeg2000_tables(data: bytes, start: int, samples: int) -> int:
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


# --- AVIF

_SEQUENCE_HEADER = 1


def avif_coded_pixels(data: bytes) -> int:
    """Returns the pixels of all AV1 pictures in a file, of colour and alpha, of all tiles of a grid, added up.

    AV1 specification, 5.5 (sequence header); ISO/IEC 14496-12, 8.11 (items); AV1 in ISOBMFF, 2.3 (tracks).

    Raises:
      BadImageError: one of them does not say how large it is.
    """
    units = iter(range(_MOST_PARTS))
    pixels = [_av1_pixels(coded, units) for part in (_items, _first_samples) for coded in part(data)]
    if not pixels:
        raise BadImageError("damaged (no AV1 picture)")
    return sum(pixels)


def _av1_pixels(coded: bytes | memoryview, units: Iterator[int]) -> int:
    """Returns the pixels of the largest picture that a sequence of open bitstream units announces.

    Args:
      coded: the units.
      units: gives out how many may be looked at.
    """
    at, most = 0, 0
    while at < len(coded):
        if next(units, None) is None:
            raise _in_crumbs()
        kind, has_extension, has_size = coded[at] >> 3 & 15, coded[at] >> 2 & 1, coded[at] >> 1 & 1
        at += 1 + has_extension
        size = len(coded) - at
        if has_size:
            size, at = _leb128(coded, at)
        if kind == _SEQUENCE_HEADER:
            most = max(most, _pixels_of_sequence(_Bits(bytes(coded[at : at + min(size, 512)]))))
        at += size
    if not most:
        raise BadImageError("damaged (AV1 without a sequence header)")
    return most


def _leb128(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Returns a number of up to eight bytes with seven bits each, the lowest first, and where it ends."""
    value = 0
    for number in range(8):
        byte = data[at + number]
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, at + number + 1
    raise BadImageError("damaged (a size of more than eight bytes)")


class _Bits:
    """Takes numbers from bytes, the highest bit first."""

    def __init__(self, data: bytes):
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise BadImageError("cut short")
        return self._value >> self._left & ((1 << count) - 1)


def _pixels_of_sequence(bits: _Bits) -> int:
    bits.take(4)  # profile, still picture
    is_reduced = bits.take(1)
    if is_reduced:
        bits.take(5)
    else:
        _skip_timing_and_levels(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(across) + 1, bits.take(down) + 1
    # In the reduced form all frames have this size. Otherwise a frame may give another one in as many bits.
    return width * height if is_reduced else 2 ** (across + down)


def _skip_timing_and_levels(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):  # a number after as many zeros as it has bits
            zeros = 0
            while zeros < 32 and not bits.take(1):
                zeros += 1
            bits.take(zeros if zeros < 32 else 0)
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_delay and bits.take(1):
            bits.take(4)


def _items(data: bytes) -> Iterator[bytes | memoryview]:
    """Yields the content of each item of type `av01`."""
    view, joined = memoryview(data), 0
    for start, end in _found(data, 0, len(data), b"meta"):
        start += 4
        idat = next(_found(data, start, end, b"idat"), (0, 0))[0]
        wanted = set(_av1_item_numbers(data, start, end))
        for at, _ in _found(data, start, end, b"iloc"):
            for item, in_idat, extents in _locations(data, at):
                if item not in wanted:
                    continue
                base = idat if in_idat else 0
                parts = [view[base + first : base + first + size if size else len(data)] for first, size in extents]
                if len(parts) != 1:
                    joined += sum(map(len, parts))
                    if joined > len(data):
                        raise BadImageError("damaged (items share their bytes)")
                yield parts[0] if len(parts) == 1 else b"".join(parts)


def _av1_item_numbers(data: bytes, start: int, end: int) -> Iterator[int]:
    for at, stop in _found(data, start, end, b"iinf"):
        for name, entry, _ in _boxes(data, at + (6 if data[at] == 0 else 8), stop):
            number = ">I" if data[entry] >= 3 else ">H"
            kind = entry + 4 + struct.calcsize(number) + 2
            if name == b"infe" and data[kind : kind + 4] == b"av01":
                yield struct.unpack_from(number, data, entry + 4)[0]


def _locations(data: bytes, at: int) -> Iterator[tuple[int, bool, list[tuple[int, int]]]]:
    """Yields of each item in an `iloc` box its number, whether it lies in `idat`, and its parts as start and size."""
    version, sizes = data[at], int.from_bytes(data[at + 4 : at + 6], "big")
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    at, left = at + 6, 8 * _MOST_PARTS

    def take(size: int) -> int:
        nonlocal at, left
        left -= 1
        if left < 0:
            raise _in_crumbs()
        if at + size > len(data):
            raise BadImageError("cut short")
        at += size
        return int.from_bytes(data[at - size : at], "big")

    wide = 4 if version == 2 else 2
    for _ in range(take(wide)):
        item = take(wide)
        method = take(2) & 15 if version else 0
        take(2)
        base = take(base_size)
        extents = []
        for _ in range(take(2)):
            take(index_size if version else 0)
            first, size = base + take(offset_size), take(length_size)
            extents.append((first, size))
        yield item, method == 1, extents


def _first_samples(data: bytes) -> Iterator[memoryview]:
    """Yields the first sample of each track that holds AV1: the first frame of an animation."""
    view = memoryview(data)  # which copies nothing: any number of tracks may share a sample
    for start, end in _found(data, 0, len(data), b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        tables = {name: content for name, content, _ in _boxes(data, start, end)}
        if b"stsd" not in tables or data[tables[b"stsd"] + 12 : tables[b"stsd"] + 16] != b"av01":
            continue
        (size,) = struct.unpack_from(">I", data, tables[b"stsz"] + 4)  # of all samples, or 0 before a table
        if not size:
            (size,) = struct.unpack_from(">I", data, tables[b"stsz"] + 12)
        is_wide = b"co64" in tables
        (first,) = struct.unpack_from(">Q" if is_wide else ">I", data, tables[b"co64" if is_wide else b"stco"] + 8)
        yield view[first : first + size]
