"""HEIC and JPEG XL: decoded in a process of their own, within memory and time."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from facefeat_jax.data import _outside as outside
from facefeat_jax.data.images import BadImageError, check, decode, decode_resized

if not all(map(importlib.util.find_spec, ("pillow_heif", "pillow_jxl"))):
    pytest.skip("the extra `formats` is not installed", allow_module_level=True)

MAKE = """
import io, sys
import numpy as np
import pillow_heif, pillow_jxl
from PIL import Image
pillow_heif.register_heif_opener()
form, mode, width, height = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ramp = np.linspace(0, 255, width * height, dtype=np.uint8).reshape(height, width)
picture = Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)).convert(mode)
if mode == "RGBA": picture.putalpha(Image.fromarray(ramp))
if width > 1000: picture = Image.new(mode, (width, height))
picture.save(sys.stdout.buffer, form, quality=95, effort=1)
"""


def made(form: str, mode: str = "RGB", width: int = 60, height: int = 40) -> bytes:
    """Returns a file that the plug-ins write, in a process of its own: they shall not be known to this one."""
    words = [sys.executable, "-c", MAKE, form, mode, str(width), str(height)]
    return subprocess.run(words, capture_output=True, check=True).stdout


@pytest.mark.parametrize("form", ["HEIF", "JXL"])
def test_what_the_plugins_write_is_read(form):
    data = made(form)
    assert check(data) == form
    ramp = np.linspace(0, 255, 2400, dtype=np.uint8).reshape(40, 60)
    picture = np.asarray(decode(data, "upright"), int)
    assert picture.shape == (40, 60, 3) and np.abs(picture[..., 0] - ramp).mean() < 6
    assert decode_resized(data, 16, "as_notebook").shape == (16, 16, 3)
    assert not {"pillow_heif", "pillow_jxl"} & set(sys.modules)


def test_transparency_lies_on_white():
    picture = np.asarray(decode(made("JXL", "RGBA"), "upright"), int)
    assert picture[0, :5].min() > 240  # transparent there


def test_damaged_and_cut_files_are_refused_and_the_next_is_read():
    data = made("HEIF")
    for bad in (data[:200], data[:-50], data[:12] + b"\0" * 500, b"\xff\x0a" + b"\x5a" * 200):
        with pytest.raises(BadImageError, match=r"looks like (HEIC|JPEG XL), but is damaged"):
            decode(bad, "upright")
    assert decode(data, "upright").size == (60, 40)


def test_time_and_memory_are_limited(monkeypatch):
    data = made("JXL")
    decode(data, "upright")
    process = outside._child._process
    monkeypatch.setattr(outside, "SECONDS", 0.0)
    with pytest.raises(BadImageError, match="more memory or time"):
        decode(data, "upright")
    assert process.poll() is not None
    monkeypatch.undo()
    assert decode(data, "upright").size == (60, 40)


def test_after_an_interrupt_the_next_answer_is_the_next_pictures(monkeypatch):
    first, second = made("HEIF", width=60), made("HEIF", width=80)
    receive = outside._receive

    def interrupted(stream):
        monkeypatch.setattr(outside, "_receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(outside, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(first, "upright")
    assert decode(second, "upright").width == 80


def test_a_picture_of_too_many_pixels_is_refused():
    large = made("JXL", "L", 12_000, 9_000)  # more pixels than are read
    with pytest.raises(BadImageError, match=r"too large: 12000 by 9000|more memory"):
        decode(large, "upright")


def test_an_avif_file_of_the_general_brand_is_none_of_these():
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(file, "AVIF")
    data = file.getvalue()
    assert outside.form_of(data[:8] + b"mif1" + data[12:]) is None
    assert outside.form_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIC"


def test_without_the_plugin_what_to_install_is_said(monkeypatch):
    forms = {name: (pattern, "no_such_module", form) for name, (pattern, _, form) in outside._FORMS.items()}
    monkeypatch.setattr(outside, "_FORMS", forms)
    answer, _ = outside._decode(b"", "HEIC", set())
    assert "pip install '.[predict,formats]'" in answer["error"]
