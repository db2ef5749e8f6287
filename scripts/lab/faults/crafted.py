"""Small files that claim much or cost much, and samples whose range nobody says: written byte by byte, as few tools do.

The generators are for tests too; `draw_crafted` makes one file of each kind from random numbers.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from faults import plugin_pictures

Random = np.random.RandomState


@dataclass(frozen=True)
class Crafted:
    """How files of a kind are made."""

    make: Callable[[Random], bytes]  # from random numbers to a file
    usable: bool | None = False  # whether it is a picture that `upright` reads; None where either answer is right
    is_noted: bool = False  # whether an answer for it says what is odd about it


def tiff(tags: list[tuple[int, int, int, int]], content: bytes) -> bytes:
    """Returns a TIFF of these entries (tag, type, count, value); -1 stands for where the content lies."""
    at = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", a, b, c, at if d == -1 else d) for a, b, c, d in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def tiled(width: int, height: int, across: int, down: int, compression: int = 8) -> bytes:
    """Returns a grey TIFF of one tile, which is cut short."""
    content = zlib.compress(bytes(1000))
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), (322, 4, 1, across), (323, 4, 1, down), (324, 4, 1, -1), (325, 4, 1, len(content))]
    return tiff(tags, content)


def striped(width: int, height: int, samples: int, bits: int, compression: int = 8) -> bytes:
    """Returns a TIFF of one strip, which is cut short."""
    content = zlib.compress(bytes(1000))
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression)]
    tags += [(262, 3, 1, 1 if samples == 1 else 2), (277, 3, 1, samples), (278, 4, 1, height)]
    return tiff([*tags, (273, 4, 1, -1), (279, 4, 1, len(content))], content)


def segment(marker: int, body: bytes) -> bytes:
    """Returns a segment of a JPEG or a JPEG 2000 codestream."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(side: int, scans: int, *, between: bytes = b"") -> bytes:
    """Returns a grey progressive JPEG of empty scans."""
    out = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    out += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00")
    out += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    out += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    blocks = (-(-side // 8)) ** 2
    out += segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(-(-blocks // 8))
    run = b"\x7f\x00" if blocks < 2**14 else b"\x7f\xfe"
    return out + (between + segment(0xDA, b"\x01\x01\x00\x01\x01\x00") + run) * scans + b"\xff\xd9"


def codestream(side: int, components: int, *, tile: int = 0, block: int = 4, precincts: bytes = b"") -> bytes:
    """Returns an empty JPEG 2000 codestream."""
    tile = tile or side
    out = b"\xff\x4f" + segment(
        0x51, struct.pack(">H8IH", 0, side, side, 0, 0, tile, tile, 0, 0, components) + b"\x07\x01\x01" * components
    )
    out += segment(0x52, bytes([bool(precincts), 0, 0, 1, 0, 5, block, block, 0, 1]) + precincts)
    out += segment(0x5C, bytes([0x40] + [0x40] * 16))
    return out + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 18, 0, 1) + b"\xff\x93" + bytes(4) + b"\xff\xd9"


def rle_bmp(width: int, height: int) -> bytes:
    """Returns a BMP with run lengths, which is cut short."""
    content = b"\x01\x07\x00\x00" + b"\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(content), 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 1084, 0, 0, 1078) + header + bytes(1024) + content


def chunk(name: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def chunks(count: int) -> bytes:
    """Returns a PNG of 8 by 8 pixels behind so many chunks of text."""
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    return head + chunk(b"tEXt", b"a\0b") * count + chunk(b"IDAT", zlib.compress(bytes(72))) + chunk(b"IEND", b"")


def icon(side: int) -> bytes:
    """Returns an ICO with a blank PNG in it."""
    flat = _saved(Image.new("1", (side, side)), "PNG")
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(flat), 22) + flat


def webp_that_claims(width: int, height: int) -> bytes:
    """Returns a small lossless WebP whose header claims another size."""
    data = bytearray(_saved(Image.new("RGB", (8, 8), "red"), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    (packed,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, (packed & ~(2**28 - 1)) | (height - 1) << 14 | (width - 1))
    return bytes(data)


def avif_that_claims(width: int, height: int) -> bytes:
    """Returns a small AVIF whose container claims another size."""
    data = bytearray(_saved(Image.new("RGB", (16, 16), "red"), "AVIF", speed=10))
    struct.pack_into(">II", data, data.index(b"ispe") + 8, width, height)
    return bytes(data)


def scan_before_frame() -> bytes:
    """Returns a JPEG whose first scan stands before the frame that describes it."""
    jpeg = _saved(Image.linear_gradient("L"), "JPEG")
    at = jpeg.index(b"\xff\xda")
    scan, frame = jpeg[at : at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")], jpeg.index(b"\xff\xc0")
    return jpeg[:frame] + scan + jpeg[frame:]


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _ramp(random: Random, high: float, kind: type[np.generic], low: float = 0) -> np.ndarray:
    """Returns a grey ramp of a random size, from `low` to `high`."""
    width, height = random.randint(16, 200, 2)
    return np.linspace(low, high, width)[None].repeat(height, 0).astype(kind)


def _array(samples: np.ndarray, form: str = "TIFF", **tags: float) -> bytes:
    numbers = {"high": 341, "low": 340, "most": 281, "format": 339}
    options = {"tiffinfo": {numbers[name]: value for name, value in tags.items()}} if tags else {}
    return _saved(Image.fromarray(samples), form, **options)


def _signed(random: Random, *, is_stated: bool) -> bytes:
    samples = _ramp(random, 3000, np.int16)
    tags = [(256, 4, 1, samples.shape[1]), (257, 4, 1, samples.shape[0]), (258, 3, 1, 16), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (277, 3, 1, 1), (278, 4, 1, len(samples)), (273, 4, 1, -1), (279, 4, 1, samples.nbytes)]
    stated = [(340, 8, 1, 0), (341, 8, 1, 3000)] if is_stated else []
    return tiff([*tags, (339, 3, 1, 2), *stated], samples.tobytes())


def _pfm(random: Random) -> bytes:
    samples = _ramp(random, 1, np.float32)
    return b"Pf\n%d %d\n-1.0\n" % samples.shape[::-1] + samples.tobytes()


def _pnm(random: Random, high: int) -> bytes:
    samples = _ramp(random, high, np.uint16)
    return b"P5 %d %d %d\n" % (*samples.shape[::-1], high) + samples.astype(">u2").tobytes()


def _plain(random: Random) -> bytes:
    samples = _ramp(random, 255, np.uint8)
    return b"P2\n# by hand\n%d %d\n255\n" % samples.shape[::-1] + b" ".join(b"%d" % one for one in samples.ravel())


def _side(random: Random, low: int, high: int) -> int:
    return int(random.randint(low, high))


# The limits that these lie beyond, or just within, are those of docs/predict.md.
CRAFTED: dict[str, Crafted] = {
    "TIFF: one tile of gigabytes": Crafted(
        lambda r: tiled(64, 64, *(16 * int(n) for n in r.randint(2100, 4000, 2)), (5, 8)[r.randint(2)])
    ),
    "TIFF: tiles far wider than the picture": Crafted(lambda r: tiled(16, _side(r, 40_000, 65_000), 60_000, 16)),
    "TIFF: a tile within the limits": Crafted(lambda r: tiled(64, 64, 16_000, 16 * _side(r, 300, 1300)), None),
    "TIFF: a strip of hundreds of megabytes": Crafted(lambda r: striped(_side(r, 8000, 9000), 9000, 4, 16)),
    "TIFF: a strip within the limits": Crafted(lambda r: striped(_side(r, 5000, 9000), 5000, 3, 8), None),
    "JPEG: thousands of scans": Crafted(lambda r: progressive(_side(r, 64, 1500), _side(r, 150, 4000))),
    "JPEG: scans within the limits": Crafted(lambda r: progressive(_side(r, 64, 4000), _side(r, 20, 99)), None),
    "JPEG: scans between comments with an end in them": Crafted(
        lambda r: progressive(_side(r, 64, 400), _side(r, 150, 400), between=segment(0xFE, b"\xff\xd9"))
    ),
    "JPEG: thousands of segments": Crafted(
        lambda r: b"\xff\xd8" + segment(0xFE, b"") * _side(r, 10_001, 40_000) + progressive(8, 1)[2:]
    ),
    "JPEG: a scan before its frame": Crafted(lambda r: scan_before_frame()),
    "BMP: run lengths of many pixels": Crafted(lambda r: rle_bmp(_side(r, 5000, 60_000), 1000)),
    "BMP: run lengths within the limits": Crafted(lambda r: rle_bmp(_side(r, 50, 1000), 1000), None),
    "PNM: plain, many pixels": Crafted(lambda r: b"P2\n%d 4000\n255\n" % _side(r, 2000, 9000) + b"1 " * 10),
    "PNM: plain bits, many pixels": Crafted(lambda r: b"P1\n%d 4000\n" % _side(r, 2000, 9000) + b"1" * 10),
    "PNM: another maximum, many pixels": Crafted(lambda r: b"P6\n4000 4000\n%d\n" % _side(r, 2, 250) + bytes(50)),
    "PNM: thousands of comments": Crafted(lambda r: b"P2\n400 400\n255\n" + b"#\n" * _side(r, 101, 9000) + b"1 " * 10),
    "PNM: plain": Crafted(_plain, True),
    "QOI: many pixels": Crafted(
        lambda r: b"qoif" + struct.pack(">IIBB", _side(r, 2000, 9000), 4000, 3, 0) + b"\xfd" * 10 + bytes(7) + b"\x01"
    ),
    "PNG: thousands of chunks": Crafted(lambda r: chunks(_side(r, 20_000, 40_000))),
    "ICO: a picture larger than any icon": Crafted(lambda r: icon(_side(r, 3500, 6000))),
    "JPEG 2000: many components": Crafted(lambda r: codestream(_side(r, 7500, 9000), 4)),
    "JPEG 2000: thousands of tiles": Crafted(lambda r: codestream(9000, 1, tile=_side(r, 8, 60))),
    "JPEG 2000: code blocks of few pixels": Crafted(lambda r: codestream(_side(r, 5000, 7000), 3, block=0)),
    "JPEG 2000: precincts of few pixels": Crafted(lambda r: codestream(_side(r, 4000, 6000), 3, precincts=b"\x11" * 6)),
    "JPEG 2000: tables within the limits": Crafted(
        lambda r: codestream(_side(r, 500, 2000), 3, block=_side(r, 0, 3), precincts=(b"", b"\x33" * 6)[r.randint(2)]),
        None,
    ),
    "WebP: claims many pixels": Crafted(lambda r: webp_that_claims(*(int(n) for n in r.randint(7000, 9000, 2)))),
    "WebP: claims pixels within the limits": Crafted(lambda r: webp_that_claims(_side(r, 2000, 6000), 6000), None),
    "AVIF: claims many pixels": Crafted(lambda r: avif_that_claims(*(int(n) for n in r.randint(7500, 9000, 2)))),
    "AVIF: claims pixels within the limits": Crafted(lambda r: avif_that_claims(_side(r, 2000, 6000), 6000), None),
    "HEIC: claims many pixels": Crafted(
        lambda r: plugin_pictures.heic_that_claims(*(int(n) for n in r.randint(9500, 16_000, 2)))
    ),
    "HEIC: claims pixels within the limits": Crafted(
        lambda r: plugin_pictures.heic_that_claims(_side(r, 99, 9000), 9000)
    ),
    "HEIC: a grid of many tiles": Crafted(
        lambda r: plugin_pictures.heic_grid(*(int(n) for n in r.randint(33, 255, 2)))
    ),
    "HEIC: a grid of tiles within the limits": Crafted(
        lambda r: plugin_pictures.heic_grid(*(int(n) for n in r.randint(2, 31, 2))), True
    ),
    "JPEG XL: claims many pixels": Crafted(lambda r: plugin_pictures.jxl_that_claims(_side(r, 20_000, 250_000), 8000)),
    "JPEG XL: claims pixels within the limits": Crafted(
        lambda r: plugin_pictures.jxl_that_claims(_side(r, 8200, 11_000), 8000)
    ),
    "floats of no stated range": Crafted(lambda r: _array(_ramp(r, (1, 255)[r.randint(2)], np.float32))),
    "floats of no stated range, PFM": Crafted(_pfm),
    "floats of a stated range": Crafted(lambda r: _array(_ramp(r, 1, np.float32), low=0.0, high=1.0), True),
    "32 bits of no stated range": Crafted(lambda r: _array(_ramp(r, 255, np.int32))),
    "32 bits of a stated range": Crafted(lambda r: _array(_ramp(r, 90_000, np.int32), high=90_000.0), True),
    "signed 16 bits of no stated range": Crafted(lambda r: _signed(r, is_stated=False)),
    "signed 16 bits of a stated range": Crafted(lambda r: _signed(r, is_stated=True), True),
    "16 bits": Crafted(lambda r: _array(_ramp(r, 65_535, np.uint16), ("PNG", "TIFF")[r.randint(2)]), True),
    "12 bits, and it says so": Crafted(lambda r: _array(_ramp(r, 4095, np.uint16), most=4095), True),
    "10 bits, and it says so, PNM": Crafted(lambda r: _pnm(r, 1023), True),
    "12 bits in 16 that say nothing": Crafted(
        lambda r: _array(_ramp(r, 4095, np.uint16), ("PNG", "TIFF")[r.randint(2)]), True, is_noted=True
    ),
    "a single colour": Crafted(
        lambda r: _array(np.full((40, 30), r.randint(256), np.uint8), "PNG"), True, is_noted=True
    ),
}


def draw_crafted(number: int, seed: int) -> tuple[str, Crafted, bytes]:
    """Returns the kind of the file of that number, how it is made, and the file."""
    kind = list(CRAFTED)[number % len(CRAFTED)]
    return kind, CRAFTED[kind], CRAFTED[kind].make(np.random.RandomState([seed, 11, number]))
