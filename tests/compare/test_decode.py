"""Decoding and resizing give the very bytes that PIL and torchvision's `Resize` give, under `as_notebook`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facefeat_jax.data.images import decode_resized

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".avif"}
SAMPLED = 200


def _reference(data: bytes, size: int) -> np.ndarray:
    from pytorch_baseline.pictures import resize

    return np.array(resize(size)(Image.open(io.BytesIO(data)).convert("RGB")))


def _is_identical(data: bytes, size: int) -> bool:
    ours, theirs = decode_resized(data, size, "as_notebook"), _reference(data, size)
    assert ours.dtype == theirs.dtype == np.uint8
    assert ours.shape == theirs.shape == (size, size, 3)
    return np.array_equal(ours, theirs)


@pytest.mark.realdata
@pytest.mark.parametrize("size", [224, 64])
def test_real_pictures(realdata: Path, size: int) -> None:
    """A sample spread over all sets, with every portrait and every AVIF and WebP file."""
    files = sorted(path for path in realdata.rglob("*") if path.suffix.lower() in PICTURES)
    rare = [p for p in files if p.suffix.lower() in (".avif", ".webp") or p.parent.name == "portraits"]
    chosen = {*files[:: max(len(files) // SAMPLED, 1)], *rare}
    sets = {path.relative_to(realdata).parts[0] for path in chosen}
    assert {"fairface", "glasses", "apparel", "portraits"} <= sets
    assert len(chosen) >= SAMPLED
    assert not [str(path) for path in sorted(chosen) if not _is_identical(path.read_bytes(), size)]


def _picture(width: int = 97, height: int = 61) -> Image.Image:
    """Noise over a gradient, so that every pixel of the result depends on how it was weighted."""
    stream = np.random.RandomState(width * 1000 + height)
    ramp = np.linspace(0, 155, width)[None, :, None] * np.linspace(0.5, 1, height)[:, None, None]
    return Image.fromarray((ramp + stream.randint(0, 100, (height, width, 3))).astype(np.uint8))


def _grey16() -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 65536, (61, 97)).astype(np.uint16))


def _encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _rotated(orientation: int) -> bytes:
    image = _picture()
    exif = image.getexif()
    exif[0x0112] = orientation
    return _encoded(image, "JPEG", exif=exif, quality=95)


def _with_alpha(mode: str) -> Image.Image:
    image = _picture().convert(mode[:-1] if mode == "LA" else "RGB")
    image.putalpha(Image.fromarray(np.random.RandomState(1).randint(0, 256, (61, 97)).astype(np.uint8)))
    assert image.mode == mode
    return image


def _palette() -> Image.Image:
    return _picture().quantize(16)


MADE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: _encoded(_picture(), "JPEG"),
    "jpeg, progressive": lambda: _encoded(_picture(), "JPEG", progressive=True),
    "jpeg, enlarged": lambda: _encoded(_picture(20, 30), "JPEG"),
    "jpeg, large": lambda: _encoded(_picture(1201, 799), "JPEG"),
    "jpeg, grey": lambda: _encoded(_picture().convert("L"), "JPEG"),
    "jpeg, cmyk": lambda: _encoded(_picture().convert("CMYK"), "JPEG"),
    **{f"jpeg, exif {number}": lambda number=number: _rotated(number) for number in (2, 3, 6, 8)},
    "png": lambda: _encoded(_picture(), "PNG"),
    "png, rgba": lambda: _encoded(_with_alpha("RGBA"), "PNG"),
    "png, la": lambda: _encoded(_with_alpha("LA"), "PNG"),
    "png, palette": lambda: _encoded(_palette(), "PNG"),
    "png, palette with transparency": lambda: _encoded(_palette(), "PNG", transparency=3),
    "png, palette with alphas": lambda: _encoded(_palette(), "PNG", transparency=bytes(range(0, 256, 16))),
    "png, rgb with a transparent colour": lambda: _encoded(_picture(), "PNG", transparency=(10, 20, 30)),
    "png, 1 bit": lambda: _encoded(_picture().convert("1"), "PNG"),
    "png, 16 bit": lambda: _encoded(_grey16(), "PNG"),
    "tiff, 16 bit": lambda: _encoded(_grey16(), "TIFF"),
    "png, one column": lambda: _encoded(_picture(1, 50), "PNG"),
    "png, one row": lambda: _encoded(_picture(50, 1), "PNG"),
    "png, one pixel": lambda: _encoded(_picture(1, 1), "PNG"),
    "webp": lambda: _encoded(_picture(), "WEBP"),
    "webp, rgba": lambda: _encoded(_with_alpha("RGBA"), "WEBP", lossless=True),
    "avif": lambda: _encoded(_picture(), "AVIF"),
    "avif, rgba": lambda: _encoded(_with_alpha("RGBA"), "AVIF"),
    "gif": lambda: _encoded(_palette(), "GIF"),
    "gif, animated": lambda: _encoded(_palette(), "GIF", save_all=True, append_images=[_picture(97, 61).quantize(8)]),
    "bmp": lambda: _encoded(_picture(), "BMP"),
}


@pytest.mark.parametrize("size", [224, 33])
@pytest.mark.parametrize("kind", MADE)
def test_made_pictures(kind: str, size: int) -> None:
    assert _is_identical(MADE[kind](), size)


def test_another_filter_would_be_seen() -> None:
    data = MADE["png"]()
    other = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=1.0)
    assert not np.array_equal(np.array(other), _reference(data, 20))
    nearest = np.array(Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.NEAREST))
    assert not np.array_equal(nearest, _reference(data, 64))


def test_the_pixels_a_step_sees_are_the_notebooks() -> None:
    """From the file to the normalised tensor: `ToTensor` and `Normalize` against `normalize`, in float32."""
    import jax.numpy as jnp
    import torch

    from facefeat_jax.models import normalize
    from pytorch_baseline.pictures import tensor_of, transform

    data = MADE["jpeg"]()
    theirs = transform(64)(Image.open(io.BytesIO(data)).convert("RGB"))
    pixels = decode_resized(data, 64, "as_notebook")
    np.testing.assert_allclose(normalize(jnp.asarray(pixels[None]))[0], theirs.permute(1, 2, 0), rtol=1e-6, atol=1e-6)
    assert torch.equal(tensor_of(pixels[None], torch.float32)[0], theirs)
