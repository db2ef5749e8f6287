"""Small files that would take gigabytes or minutes are refused by their headers, and honest ones are not."""

from __future__ import annotations

import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from facefeat_jax.data import decoder_limits, images
from facefeat_jax.data.decoder_limits import BadImageError, Budget
from facefeat_jax.data.images import check, decode, decode_resized


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def tiff(tags: list[tuple[int, int, int, int]], content: bytes) -> bytes:
    """A TIFF of these entries; -1 stands for where the content lies."""
    at = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", a, b, c, at if d == -1 else d) for a, b, c, d in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def tiled(width: int, height: int, across: int, down: int, compression: int = 8) -> bytes:
    content = zlib.compress(bytes(1000))
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), (322, 4, 1, across), (323, 4, 1, down), (324, 4, 1, -1), (325, 4, 1, len(content))]
    return tiff(tags, content)


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(side: int, scans: int, *, between: bytes = b"") -> bytes:
    """A grey progressive JPEG of empty scans."""
    out = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    out += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\x01\x11\x00")
    out += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")
    out += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    blocks = (-(-side // 8)) ** 2
    out += segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + bytes(-(-blocks // 8))
    run = b"\x7f\x00" if blocks < 2**14 else b"\x7f\xfe"
    return out + (between + segment(0xDA, b"\x01\x01\x00\x01\x01\x00") + run) * scans + b"\xff\xd9"


def codestream(side: int, components: int, *, tile: int = 0, block: int = 4, precincts: bytes = b"") -> bytes:
    """An empty JPEG 2000 codestream."""
    tile = tile or side
    out = b"\xff\x4f" + segment(
        0x51, struct.pack(">H8IH", 0, side, side, 0, 0, tile, tile, 0, 0, components) + b"\x07\x01\x01" * components
    )
    out += segment(0x52, bytes([bool(precincts), 0, 0, 1, 0, 5, block, block, 0, 1]) + precincts)
    out += segment(0x5C, bytes([0x40] + [0x40] * 16))
    return out + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 18, 0, 1) + b"\xff\x93" + bytes(4) + b"\xff\xd9"


def rle_bmp(width: int, height: int) -> bytes:
    content = b"\x01\x07\x00\x00" + b"\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(content), 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 1084, 0, 0, 1078) + header + bytes(1024) + content


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


CRAFTED = {
    "one tile of 2 GiB": tiled(64, 64, 46336, 46336, 5),
    "tiles far wider than the picture": tiled(16, 60_000, 60_000, 16),
    "tile of 600 MiB": tiled(4000, 4000, 16_000, 16_000),
    "scans": progressive(64, 150),
    "scans after an end in a comment": progressive(64, 150, between=segment(0xFE, b"\xff\xd9")),
    "segments": b"\xff\xd8" + segment(0xFE, b"") * 20_000 + progressive(8, 1)[2:],
    "components": codestream(9000, 4),
    "tiles": codestream(9000, 1, tile=40),
    "code blocks": codestream(6000, 3, block=0),
    "precincts": codestream(4000, 3, precincts=b"\x11" * 6),
    "run lengths": rle_bmp(60_000, 1000),
    "a side that a resize would multiply": rle_bmp(100_000, 1),
    "plain text with comments": b"P2\n400 400\n255\n" + b"#\n" * 5000 + b"1 " * 10,
    "plain text": b"P2\n4000 4000\n255\n" + b"1 " * 10,
    "plain bits": b"P1\n4000 4000\n" + b"1" * 10,
    "another maxval": b"P6\n4000 4000\n100\n" + bytes(50),
    "header in crumbs": b"P6\n# " + b"x" * 100_000 + b"\n8 8\n255\n" + bytes(192),
    "QOI": b"qoif" + struct.pack(">IIBB", 4000, 4000, 3, 0) + b"\xfd" * 10 + bytes(7) + b"\x01",
    "chunks": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    + chunk(b"tEXt", b"a\0b") * 20_000
    + chunk(b"IDAT", zlib.compress(bytes(72)))
    + chunk(b"IEND", b""),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused_at_once_and_in_little_memory(name, monkeypatch):
    monkeypatch.setattr(decoder_limits, "MAX_DECODER_BYTES", 2**27 if name == "tile of 600 MiB" else 2**30)
    for policy in ("as_notebook", "upright"):
        started = time.monotonic()
        with pytest.raises(BadImageError, match=r"too large|too slow") as caught:
            decode_resized(CRAFTED[name], 16, policy)
        assert time.monotonic() - started < 2
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("form", ["WEBP", "AVIF"])
def test_what_a_decoder_needs_counts_and_not_the_pixels_alone(form, monkeypatch):
    data = saved(Image.new("RGB", (64, 64), 77), form)
    opened = Image.open

    def larger(*args, **kwargs):
        image = opened(*args, **kwargs)
        image._size = (9000, 9000)
        return image

    monkeypatch.setattr(Image, "open", larger)
    with pytest.raises(BadImageError, match=r"GiB to decode, the limit is 1"):
        decode(data, "upright")


def test_honest_pictures_of_all_forms_pass(picture):
    for form, options in (
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("JPEG", {"progressive": True}),
        ("JPEG2000", {"tile_size": (32, 32)}),
        ("JPEG2000", {"precinct_size": (128, 128), "codeblock_size": (32, 32)}),
        ("QOI", {}),
        ("PPM", {}),
        ("SGI", {}),
    ):
        data = picture(3, form, (200, 150), **options)
        assert decode_resized(data, 16, "upright").shape == (16, 16, 3), (form, options)
    two = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(two, "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    video = np.random.RandomState(0).bytes(2_000_000)  # a phone's moving picture behind the still one
    assert check(two.getvalue()) and check(picture(1, "JPEG", (64, 64), progressive=True) + video) == "JPEG"
    assert check(b"P3\n# by hand\n2 1\n255\n255 0 0 0 0 255\n") == "PPM"


def test_as_much_memory_as_the_estimate_says_is_held_while_decoding(picture, monkeypatch):
    """Whoever asks for more than is left waits, and nobody is passed over for ever."""
    budget = Budget(100)
    order: list[int] = []

    def take(count: int) -> None:
        with budget.holding(count):
            order.append(count)
            assert budget._held <= 100
            time.sleep(0.005)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [60, 60, 30, 100, 10, 500] * 5))
    assert len(order) == 30 and budget._held == 0
    held: list[int] = []

    class Watched(Budget):
        def holding(self, count):
            held.append(count)
            return super().holding(count)

    monkeypatch.setattr(images, "BUDGET", Watched(2**30))
    decode(saved(Image.new("RGBA", (100, 100)), "PNG"), "upright")
    assert 80_000 <= held[0] < 82_000


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "QOI"])
def test_nothing_is_decoded_before_its_memory_is_held(form, picture, monkeypatch):
    class Empty(Budget):
        def holding(self, count):
            raise RuntimeError("held")

    data = picture(1, form, (30, 20))
    monkeypatch.setattr(images, "BUDGET", Empty(1))
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(RuntimeError, match="held"):
        decode(data, "upright")
