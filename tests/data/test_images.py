"""Decoding: the two policies, and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from facefeat_jax.data import images
from facefeat_jax.data._budget import Budget
from facefeat_jax.data._decoder_limits import MAX_PIXELS
from facefeat_jax.data._reasons import fits_suffix
from facefeat_jax.data.images import (
    BadImageError,
    check,
    decode,
    decode_resized,
    pixels_resized,
)
from facefeat_jax.system.errors import UserError

from ..made import encoded, noise

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "QOI")


def pixels(data: bytes, policy) -> np.ndarray:
    return np.asarray(decode(data, policy))


def test_as_notebook_is_convert_and_bilinear_resize_of_pillow(picture):
    for mode in ("RGB", "L", "CMYK", "1"):
        data = picture(3, "TIFF" if mode == "CMYK" else "PNG" if mode == "1" else "JPEG", (37, 23), mode)
        expected = Image.open(io.BytesIO(data)).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        assert np.array_equal(decode_resized(data, 16, "as_notebook"), np.asarray(expected))
    result = decode_resized(picture(1), 9, "as_notebook")
    assert result.shape == (9, 9, 3) and result.dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_by_upright_only(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = picture(1, "JPEG", (32, 16), exif=exif)
    stored = Image.open(io.BytesIO(data))
    assert np.array_equal(pixels(data, "as_notebook"), np.asarray(stored))
    assert np.array_equal(pixels(data, "upright"), np.asarray(ImageOps.exif_transpose(stored)))
    assert decode(data, "upright").size == ((16, 32) if orientation > 4 else (32, 16))


def test_broken_exif_does_not_lose_the_picture(picture):
    data = picture(1, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12broken")
    assert np.array_equal(pixels(data, "upright"), pixels(data, "as_notebook"))


def test_16_bit_grey_is_clipped_as_in_the_notebook_and_scaled_upright():
    values = np.array([[0, 100, 255, 256, 1000, 40000, 65535]], np.uint16)
    for form in ("PNG", "TIFF", "PPM"):
        data = encoded(Image.fromarray(values), form)
        assert pixels(data, "as_notebook")[0, :, 0].tolist() == [0, 100, 255, 255, 255, 255, 255]
        assert pixels(data, "upright")[0, :, 0].tolist() == [0, 0, 0, 1, 3, 156, 255]


def test_transparency_is_dropped_as_in_the_notebook_and_laid_on_white_upright():
    colour = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    grey = Image.new("LA", (4, 4), (10, 0))
    for image, kept in ((colour, [200, 0, 0]), (grey, [10, 10, 10])):
        data = encoded(image)
        assert pixels(data, "as_notebook")[0, 0].tolist() == kept
        assert pixels(data, "upright")[0, 0].tolist() == [255, 255, 255]
    half = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert pixels(half, "upright")[0, 0].tolist() == [127, 127, 127]


def test_transparent_palette_and_colour_key_are_laid_on_white_upright():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 0, 0, 200] + [0] * 750)
    keyed = Image.new("RGB", (4, 4), (0, 0, 200))
    for image, transparent in ((palette, 1), (palette, bytes([255, 0])), (keyed, (0, 0, 200))):
        data = encoded(image, transparency=transparent)
        assert pixels(data, "as_notebook")[0, 0].tolist() == [0, 0, 200]
        assert pixels(data, "upright")[0, 0].tolist() == [255, 255, 255]


def test_of_an_animation_the_first_frame_counts():
    first, second = Image.new("RGB", (6, 6), (255, 0, 0)), Image.new("RGB", (6, 6), (0, 0, 255))
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(first, form, save_all=True, append_images=[second], **options)
        for policy in ("as_notebook", "upright"):
            assert pixels(data, policy)[0, 0].tolist() == [255, 0, 0], form


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_shapes_are_resized(picture, size):
    assert decode_resized(picture(0, "PNG", size), 8, "upright").shape == (8, 8, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_content_decides_the_format_and_cut_files_are_refused(picture, form):
    data = picture(1, form, (64, 48))
    assert check(data) == form
    for length in (len(data) // 2, len(data) // 4):
        with pytest.raises(BadImageError, match=r"cut short|damaged"):
            check(data[:length])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\0" * 500, "zero bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "looks like HTML"),
        (b"  <html><head>", "looks like HTML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "looks like SVG"),
        (b'{"error": "not found"}', "looks like JSON"),
        (b"PK\x03\x04rest", "looks like a zip"),
        (b"%PDF-1.7", "looks like PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "looks like HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "looks like a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"just some words", "looks like text"),
        (b"\x8a\x01\xff\xfe" * 30, "not an image of a supported format"),
        (b"\xff\xd8\xff\xe0", "begins like a JPEG"),
    ],
)
def test_what_is_no_picture_is_named(data, reason):
    for run in (check, lambda data: decode(data, "upright"), lambda data: decode_resized(data, 8, "as_notebook")):
        with pytest.raises(BadImageError, match=reason) as caught:
            run(data)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_postscript_never_reaches_ghostscript(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **kwargs: started.append(args))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadImageError, match="PostScript"):
        decode(eps, "upright")
    assert not started


@pytest.mark.parametrize("size", [(30_000, MAX_PIXELS // 30_000 + 1), (40_000, 40_000)])
def test_decompression_bombs_are_refused_before_they_are_decoded(size):
    # The two sizes lie on either side of where Pillow goes from a warning to an error.
    data = bytearray(encoded(Image.new("1", (8, 8))))
    data[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    with pytest.raises(BadImageError, match=r"too large|damaged"):
        decode(bytes(data), "as_notebook")
    real = encoded(Image.new("1", (20_000, MAX_PIXELS // 20_000 + 1)))
    with pytest.raises(BadImageError, match="too large"):
        decode(real, "as_notebook")


def test_an_icon_is_as_large_as_what_is_in_it(monkeypatch):
    """Its table of contents says 16 by 16; Pillow decodes what is in it before it can be asked for the size."""
    icon = encoded(Image.new("RGBA", (16, 16)), "ICO")
    assert check(icon) == "ICO" and check(encoded(Image.new("RGBA", (16, 16)), "ICO", bitmap_format="bmp")) == "ICO"
    for form, inner in (
        ("PNG", encoded(Image.new("1", (4000, 3001)))),
        ("BMP", encoded(Image.new("1", (8, 8)), "DIB")),
    ):
        if form == "BMP":
            inner = inner[:4] + struct.pack("<ii", 4000, -3001) + inner[12:]
        data = icon[:6] + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", None)
            with pytest.raises(BadImageError, match=r"too large: .*4000 by 3001"):
                check(data)
    with pytest.raises(BadImageError, match=r"cut short|damaged"):
        check(icon[:10])


def test_pictures_that_take_much_are_decoded_one_at_a_time(monkeypatch):
    """Four threads with four pictures at the limit would take four gigabytes."""
    inside, most = [], []
    convert = Image.Image.convert

    def counted(self, *args, **kwargs):
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return convert(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "convert", counted)
    for side, expected in ((50, {1}), (20, {1, 2, 3, 4})):
        monkeypatch.setattr(images, "BUDGET", Budget(15_000))
        most.clear()
        data = encoded(Image.new("L", (side, side)))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _, data=data: decode(data, "as_notebook"), range(12)))
        assert set(most) <= expected and (max(most) > 1) == (4 in expected)


def test_no_warning_of_pillow_leaks(picture):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 0, 0, 200] + [0] * 750)
    odd = encoded(palette, transparency=bytes([10, 128]))  # Pillow's convert("RGB") warns of this
    bomb = encoded(Image.new("1", (20_000, MAX_PIXELS // 20_000 + 1)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(odd)).convert("RGB")
    assert caught, "the picture no longer provokes the warning: this test has lost its point"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(odd, "as_notebook")
        check(picture(1))
        with pytest.raises(BadImageError, match="too large"):
            decode(bomb, "upright")


def test_threads_get_what_one_thread_gets(picture):
    files = [picture(seed, form, (50, 40)) for seed in range(8) for form in ("JPEG", "PNG", "WEBP")]
    alone = [decode_resized(data, 16, "upright") for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_resized(data, 16, "upright"), files * 5))
    assert all(np.array_equal(together[i], alone[i % len(alone)]) for i in range(len(together)))


def test_flipped_bytes_never_raise_anything_else(picture):
    random = np.random.RandomState(5)
    refused = 0
    for form in FORMATS:
        data = np.frombuffer(picture(2, form, (24, 24)), np.uint8)
        for _ in range(40):
            mutated = data.copy()
            mutated[random.randint(0, len(data), 6)] = random.randint(0, 256, 6)
            try:
                check(mutated.tobytes())
            except BadImageError:
                refused += 1
    assert 0 < refused < 40 * len(FORMATS)


def test_unknown_policy_suggests_the_near_one(picture):
    with pytest.raises(UserError, match="Did you mean 'upright'"):
        decode(picture(), "uprigth")


def test_suffixes():
    assert fits_suffix("a.JPG", "JPEG") and fits_suffix("a.jpeg", "MPO") and fits_suffix("noext", "SOMETHING")
    assert not fits_suffix("a.jpg", "PNG")


def test_imports_pillow_and_numpy_only():
    heavy = "tensorflow_datasets", "jax", "grain", "sklearn", "tensorflow", "torch", "matplotlib"
    code = f"import sys, facefeat_jax.data.images; print([name for name in {heavy!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.realdata
def test_real_pictures_decode_as_pillow_does(realdata):
    files = sorted((realdata / "apparel").glob("*_dress/*")) + sorted((realdata / "portraits").iterdir())
    files = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".avif")]
    assert len(files) > 30
    for path in files:
        data = path.read_bytes()
        with Image.open(path) as image:
            expected = image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        assert np.array_equal(decode_resized(data, 64, "as_notebook"), np.asarray(expected)), path.name


def test_pictures_are_resized_as_the_weights_want_it():
    """Both are Pillow's own; what neither recipe nor weights ask for is refused."""
    picture = noise(23, 31)
    pixels, data, made = np.asarray(picture), encoded(picture), {}
    for name, method in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        expected = np.asarray(picture.resize((9, 9), method))
        made[name] = decode_resized(data, 9, "upright", interpolation=name)
        np.testing.assert_array_equal(made[name], expected)
        np.testing.assert_array_equal(pixels_resized(pixels, 9, "upright", interpolation=name), expected)
    np.testing.assert_array_equal(decode_resized(data, 9, "upright"), made["bilinear"])
    assert not np.array_equal(made["bilinear"], made["bicubic"])
    with pytest.raises(UserError, match="Did you mean 'bicubic'"):
        decode_resized(data, 9, "upright", interpolation="bicubik")


@pytest.mark.parametrize("quality", [5, 95])
def test_a_check_without_pixels_finds_what_one_with_them_finds(quality):
    """It decodes JPEGs to an eighth of their sides, where a picture of one colour and one with a dot look alike."""
    plain = Image.new("RGB", (64, 48), (200, 30, 40))
    dotted, noise = plain.copy(), Image.effect_noise((64, 48), 90).convert("RGB")
    dotted.putpixel((11, 13), (255, 255, 255))
    for picture in (plain, dotted, noise, plain.convert("CMYK"), Image.new("L", (3, 2), 7)):
        for options in ({}, {"progressive": True}):
            data = encoded(picture, "JPEG", quality=quality, **options)
            for content in (data, data[: len(data) * 3 // 4], data[:-60] + bytes(58) + data[-2:]):
                answers = []
                for see in (None, lambda policy, seen: None):
                    notes: list[str] = []
                    try:
                        answers.append((check(content, notes=notes, see=see), notes))
                    except BadImageError as error:
                        answers.append((str(error), notes))
                assert answers[0] == answers[1]
    for picture, wanted in ((plain, [images.SINGLE_COLOUR]), (dotted, [])):
        check(encoded(picture, "JPEG", quality=95), notes=(found := []))
        assert found == wanted
