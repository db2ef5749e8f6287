"""Pictures of more than eight bits: their range is what the file says, and what is lost or guessed is noted."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from facefeat_jax.data import _sample_range as sample_range
from facefeat_jax.data.images import REDUCED, SINGLE_COLOUR, TRANSPARENT, BadImageError, check, decode, pixels_resized

from ..made import encoded

RAMP = np.linspace(0, 1, 64, dtype=np.float64)[None].repeat(8, 0)


def png(bits: int, colour: int, rows: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = rows.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(chunk(*one) for one in chunks)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def pfm(samples: np.ndarray) -> bytes:
    return b"Pf\n64 8\n-1.0\n" + samples[::-1].astype("<f4").tobytes()


def big_endian_tiff(samples: np.ndarray, photometric: int) -> bytes:
    order = "<"
    tags = [(256, 4, 64), (257, 4, 8), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (277, 3, 1), (278, 4, 8)]
    tags += [(273, 4, 8 + 2 + 12 * 9 + 4), (279, 4, samples.size * 2)]
    entries = b"".join(struct.pack("<HHII", a, b, 1, c) for a, b, c in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + samples.astype(order + "u2").tobytes()


UNKNOWN = {
    "float TIFF in 0..1": encoded(RAMP.astype(np.float32), "TIFF"),
    "float TIFF in 0..255": encoded((RAMP * 255).astype(np.float32), "TIFF"),
    "PFM": pfm(RAMP),
    "32-bit TIFF": encoded((RAMP * 255).astype(np.int32), "TIFF"),
}

# All of them show the same ramp from black to white.
STATED = {
    "16 bits": encoded((RAMP * 65535).astype(np.uint16), "TIFF"),
    "16 bits, PNG": encoded((RAMP * 65535).astype(np.uint16), "PNG"),
    "16 bits, JPEG 2000": encoded((RAMP * 65535).astype(np.uint16), "JPEG2000"),
    "float with SMaxSampleValue": encoded(RAMP.astype(np.float32), "TIFF", tiffinfo={340: 0.0, 341: 1.0}),
    "float from -1 to 1": encoded((RAMP * 2 - 1).astype(np.float32), "TIFF", tiffinfo={340: -1.0, 341: 1.0}),
    "12 bits with MaxSampleValue": encoded((RAMP * 4095).astype(np.uint16), "TIFF", tiffinfo={281: 4095}),
    "8 bits with MaxSampleValue": encoded((RAMP * 255).astype(np.uint16), "TIFF", tiffinfo={281: 255}),
    "32 bits with SMaxSampleValue": encoded((RAMP * 100_000).astype(np.int32), "TIFF", tiffinfo={341: 100_000.0}),
    "PNG whose sBIT says 12 bits": png(16, 0, RAMP * 4095, (b"sBIT", b"\x0c")),
    "PNG whose sBIT says 8 bits": png(16, 0, RAMP * 255, (b"sBIT", b"\x08")),
    "PNG scaled up from the 12 bits of its sBIT": png(16, 0, (RAMP * 4095).astype(int) * 16, (b"sBIT", b"\x0c")),
    "PGM of 10 bits": b"P5 64 8 1023\n" + (RAMP * 1023).astype(">u2").tobytes(),
    "PGM of 16 bits": b"P5 64 8 65535\n" + (RAMP * 65535).astype(">u2").tobytes(),
    "16 bits counted from white": big_endian_tiff((1 - RAMP) * 65535, 0),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_range_is_refused_upright_and_noted_as_notebook(name):
    data = UNKNOWN[name]
    with pytest.raises(BadImageError, match=r"without a stated range; .* 8 bits") as caught:
        decode(data, "upright")
    assert "\n" not in str(caught.value)
    notes: list[str] = []
    kept = np.asarray(decode(data, "as_notebook", notes=notes))
    assert np.array_equal(kept, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert any("clipped to 0..255" in note for note in notes) == ("32-bit" not in name)
    with pytest.raises(BadImageError, match="without a stated range"):
        check(data)


@pytest.mark.parametrize("name", STATED)
def test_a_stated_range_goes_from_black_to_white(name):
    notes: list[str] = []
    ramp = np.asarray(decode(STATED[name], "upright", notes=notes))
    assert np.abs(ramp[:, :, 0].astype(float) - RAMP * 255).max() <= 1.01
    assert notes == []


def test_what_as_notebook_loses_is_noted():
    for name, expected in (
        ("16 bits", sample_range.CLIPPED),
        ("PGM of 16 bits", sample_range.CLIPPED),
        ("32 bits with SMaxSampleValue", sample_range.WHOLE_NUMBERS),
        ("16 bits counted from white", sample_range.NEGATIVE),
    ):
        notes: list[str] = []
        decode(STATED[name], "as_notebook", notes=notes)
        assert expected in notes, name
    decode(encoded((RAMP * 255).astype(np.uint16), "PNG"), "as_notebook", notes=(notes := []))
    assert notes == []  # nothing is lost


def test_dark_16_bit_pictures_are_noted():
    grey, colour = (RAMP * 4095).astype(np.uint16), np.repeat((RAMP * 4095)[:, :, None], 3, 2)
    for data in (
        encoded(grey, "TIFF"),
        encoded(grey, "PNG"),
        png(16, 2, colour),
        b"P5 64 8 65535\n" + grey.astype(">u2").tobytes(),
    ):
        notes: list[str] = []
        assert np.asarray(decode(data, "upright", notes=notes)).max() == 15
        assert notes == [sample_range.DARK]
        assert sample_range.DARK in (check(data, notes=(found := [])), found)[1]
    bright = (RAMP * 8192).astype(np.uint16)
    decode(encoded(bright, "TIFF"), "upright", notes=(notes := []))
    assert notes == []


def test_blank_pictures_are_noted():
    blank = Image.new("RGB", (40, 30), (3, 4, 5))
    moving = encoded(blank, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")])
    for data in (encoded(blank, "PNG"), moving):
        for policy in ("as_notebook", "upright"):
            decode(data, policy, notes=(notes := []))
            assert notes == [SINGLE_COLOUR]
        check(data, notes=(notes := []))
        assert notes == [SINGLE_COLOUR]
    pixel = blank.copy()
    pixel.putpixel((17, 3), (3, 4, 6))
    decode(encoded(pixel, "PNG"), "upright", notes=(notes := []))
    assert notes == []
    drawn = Image.fromarray(np.random.RandomState(0).randint(0, 256, (9, 9, 3)).astype(np.uint8))
    hidden = encoded(Image.merge("RGBA", (*drawn.split(), Image.new("L", (9, 9), 0))), "PNG")
    decode(hidden, "as_notebook", notes=(notes := []))
    assert notes == [TRANSPARENT]
    decode(hidden, "upright", notes=(notes := []))
    assert notes == [TRANSPARENT, SINGLE_COLOUR]


def test_16_bit_colour_of_another_range_is_refused():
    colour = png(16, 2, np.repeat((RAMP * 65535)[:, :, None], 3, 2))
    assert decode(colour, "upright").size == (64, 8)
    image = Image.open(io.BytesIO(colour))
    image.tag_v2 = {281: (4095, 4095, 4095)}
    with pytest.raises(BadImageError, match=r"16-bit colour .*4,095"):
        sample_range.require_full_range(image)


def test_pictures_in_memory_are_taken_or_refused_clearly():
    for array in (RAMP, RAMP.astype(np.float32), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint16)):
        with pytest.raises(BadImageError, match=r"not uint8 \[height, width, 3\], but"):
            pixels_resized(array, 8, "upright")
    for image in (Image.fromarray(RAMP.astype(np.float32)), Image.fromarray((RAMP * 255).astype(np.int32))):
        with pytest.raises(BadImageError, match="without a stated range"):
            pixels_resized(image, 8, "upright")
    notes: list[str] = []
    dark = pixels_resized(Image.fromarray((RAMP * 255).astype(np.uint16)), 8, "upright", notes=notes)
    assert dark.max() == 0 and sample_range.DARK in notes
    assert pixels_resized(Image.fromarray((RAMP * 65535).astype(np.uint16)), 8, "upright").max() > 230


@pytest.mark.parametrize("place", [0, 30, 63])
def test_a_transparent_level_or_colour_of_16_bits_lies_on_white(place):
    """Pillow keeps neither: it clips levels of 16 bits, and compares colours with the upper halves of the samples."""
    samples = np.rint(RAMP * 65535).astype(int)
    level = int(samples[0, place]).to_bytes(2, "big")
    expected = samples >> 8
    expected[:, place] = 255
    for data in (
        png(16, 0, samples, (b"tRNS", level)),
        png(16, 2, samples[..., None].repeat(3, 2), (b"tRNS", level * 3)),
    ):
        upright = np.asarray(decode(data, "upright", notes=(notes := [])))
        assert np.array_equal(upright, expected[..., None].repeat(3, 2)) and notes == []
        check(data)
        # The baseline drops transparency.
        kept = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.asarray(decode(data, "as_notebook")), kept)
    hidden = png(16, 0, np.full((4, 4), 40_000), (b"tRNS", (40_000).to_bytes(2, "big")))
    decode(hidden, "upright", notes=(notes := []))
    assert notes == [TRANSPARENT, SINGLE_COLOUR]


@pytest.mark.parametrize("policy", ["as_notebook", "upright"])
def test_a_thumbnail_in_front_of_its_picture_is_noted(policy):
    small, large = Image.fromarray((RAMP * 255).astype(np.uint8)), Image.new("L", (640, 80), 90)
    for kind, expected in ((1, [REDUCED]), (0, [])):
        data = encoded(small, "TIFF", tiffinfo={254: kind}, save_all=True, append_images=[large])
        assert decode(data, policy, notes=(notes := [])).size == small.size
        assert notes == expected
