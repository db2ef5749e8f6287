"""Small files that would take gigabytes or minutes are refused by their headers, and honest ones are not."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from facefeat_jax.data import _decoder_memory as decoder_memory
from facefeat_jax.data import images
from facefeat_jax.data._budget import Budget
from facefeat_jax.data._codestreams import avif_coded_pixels
from facefeat_jax.data._decoder_limits import BadImageError
from facefeat_jax.data._decoder_memory import require_memory
from facefeat_jax.data.images import check, decode, decode_resized
from faults.crafted import chunks, codestream, progressive, rle_bmp, scan_before_frame, segment, tiled

from ..made import encoded

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
    "chunks": chunks(20_000),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused_at_once_and_in_little_memory(name, monkeypatch):
    monkeypatch.setattr(decoder_memory, "MAX_DECODER_BYTES", 2**27 if name == "tile of 600 MiB" else 2**30)
    for policy in ("as_notebook", "upright"):
        started = time.monotonic()
        with pytest.raises(BadImageError, match=r"too large|too slow") as caught:
            decode_resized(CRAFTED[name], 16, policy)
        assert time.monotonic() - started < 2
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_jpegs_whose_frame_says_nothing_are_damaged():
    with pytest.raises(BadImageError, match="begins like a JPEG"):
        decode(scan_before_frame(), "upright")
    # Pillow refuses it already; what estimates its memory must not depend on that.
    with Image.open(io.BytesIO(jpeg := encoded(Image.new("RGB", (8, 8)), "JPEG"))) as opened:
        require_memory(opened, jpeg)
        with pytest.raises(BadImageError, match="a scan before the frame"):
            require_memory(opened, scan_before_frame())
    at = jpeg.index(b"\xff\xc0") + 11
    with pytest.raises(BadImageError, match="a component without samples"):
        decode(jpeg[:at] + b"\0" + jpeg[at + 1 :], "upright")


def test_blocks_that_small_precincts_cut_count():
    """OpenJPEG took 407 MiB for these tables, whatever size of blocks the file asks for."""

    def needed(data: bytes) -> float:
        """In MiB, beyond the file, four bytes for each of the million pixels, and 5.5 for each sample."""
        with Image.open(io.BytesIO(data)) as opened:
            return (require_memory(opened, data) - len(data) - 20_500_000) / 2**20

    for block in (0, 2, 4):
        assert 400 < needed(codestream(1000, 3, block=block, precincts=b"\x22" * 6)) < 450
    assert 73 < needed(codestream(1000, 3, block=0)) < 85


@pytest.mark.parametrize("form", ["WEBP", "AVIF"])
def test_what_a_decoder_needs_counts_and_not_the_pixels_alone(form, monkeypatch):
    data = encoded(Image.new("RGB", (64, 64), 77), form)
    opened = Image.open

    def larger(*args, **kwargs):
        image = opened(*args, **kwargs)
        image._size = (9000, 9000)
        return image

    monkeypatch.setattr(Image, "open", larger)
    with pytest.raises(BadImageError, match=r"GiB to decode, the limit is 1"):
        decode(data, "upright")


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def test_the_size_in_a_box_is_not_taken_for_that_of_the_codestream(monkeypatch):
    """A decoder allocates what the codestream says, whatever the boxes around it say."""
    large = encoded(Image.new("RGB", (1200, 1100), 77), "AVIF", speed=10)
    small = large.replace(struct.pack(">II", 1200, 1100), struct.pack(">II", 64, 64))
    assert small != large and Image.open(io.BytesIO(small)).size == (64, 64)
    decoy = box(b"xml ", codestream(64, 1))
    head = encoded(Image.new("L", (64, 64)), "JPEG2000")
    head = head[: head.index(b"jp2c") - 4]
    jpeg2000 = head + decoy + box(b"jp2c", codestream(9000, 1, tile=40))
    assert Image.open(io.BytesIO(jpeg2000)).size == (64, 64)
    with pytest.raises(BadImageError, match="too slow to decode"):
        decode(jpeg2000, "upright")
    monkeypatch.setattr(decoder_memory, "MAX_DECODER_BYTES", 2**22)
    for data in (large, small):
        with pytest.raises(BadImageError, match=r"too large: .* of AVIF"):
            decode(data, "upright")


@pytest.mark.parametrize(("mode", "layers"), [("RGB", 1), ("RGBA", 2), ("L", 1)])
def test_the_coded_pixels_of_an_avif_are_those_of_its_colour_and_alpha(mode, layers):
    frame = Image.effect_noise((100, 60), 50).convert(mode)
    if mode == "RGBA":
        frame.putalpha(128)
    assert avif_coded_pixels(encoded(frame, "AVIF")) == 6000 * layers
    # In an animation, which holds its first frame as a picture too, frames may be as large as 7 and 6 bits allow.
    film = encoded(frame, "AVIF", save_all=True, append_images=[frame, frame])
    assert avif_coded_pixels(film) == 2 * 128 * 64 * layers
    assert decode_resized(film, 16, "upright").shape == (16, 16, 3)


def test_avif_that_is_cut_or_in_crumbs_is_looked_at_no_longer_than_others():
    data = encoded(Image.new("RGB", (64, 64)), "AVIF")
    at = data.index(b"meta") - 4
    for crumbs in (data[:at] + box(b"free", b"") * 20_000 + data[at:], data[: data.index(b"mdat") + 4] + b"\x12\0" * 9):
        with pytest.raises(BadImageError, match=r"too slow|without a sequence header"):
            avif_coded_pixels(crumbs)
    for cut in range(len(data)):
        with contextlib.suppress(BadImageError, struct.error, IndexError, KeyError):
            avif_coded_pixels(data[:cut])


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
    two = encoded(Image.new("RGB", (64, 64), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    video = np.random.RandomState(0).bytes(2_000_000)  # a phone's moving picture behind the still one
    assert check(two) and check(picture(1, "JPEG", (64, 64), progressive=True) + video) == "JPEG"
    assert check(b"P3\n# by hand\n2 1\n255\n255 0 0 0 0 255\n") == "PPM"


def test_as_much_memory_as_the_estimate_says_is_held_while_decoding(picture, monkeypatch):
    """Whoever asks for more than is left waits, and nobody is passed over for ever."""
    budget, lock = Budget(100), threading.Lock()
    taken, at_once = [], []

    def take(count: int) -> None:
        with budget.holding(count):
            with lock:
                taken.append(min(count, 100))
                at_once.append(sum(taken))
            time.sleep(0.005)
            with lock:
                taken.remove(min(count, 100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [60, 60, 30, 100, 10, 500] * 5))
    assert len(at_once) == 30 and max(at_once) == 100
    held: list[int] = []

    class Watched(Budget):
        def holding(self, count):
            held.append(count)
            return super().holding(count)

    monkeypatch.setattr(images, "BUDGET", Watched(2**30))
    decode(encoded(Image.new("RGBA", (100, 100)), "PNG"), "upright")
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
