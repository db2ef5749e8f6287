"""Bad pictures by the thousand, drawn here: every format that Pillow writes, spoiled, and the classics of downloads."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from facefeat_jax.avatars import draw
from faults import plugin_pictures
from faults.crafted import draw_crafted
from faults.mutate import MUTATIONS, mutated

_MODES = ("RGB", "L", "RGBA", "CMYK", "P", "1", "I;16", "LA", "I", "F")
_OPTIONS: dict[str, tuple[dict[str, object], ...]] = {
    "JPEG": ({}, {"progressive": True}, {"quality": 30, "subsampling": 2}),
    "PNG": ({}, {"interlace": 1}),
    "TIFF": tuple({"compression": name} for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
    "WEBP": ({}, {"lossless": True}),
    "AVIF": ({"speed": 10},),
}


@dataclass(frozen=True)
class Bad:
    """A file of the corpus."""

    name: str  # relative to the corpus
    kind: str  # what is wrong with it
    usable: bool | None  # whether it is a picture all the same; None where either answer is right
    is_noted: bool = False  # whether an answer for it says what is odd about it


def every_format(seed: int) -> dict[str, bytes]:
    """Returns small drawn pictures in every format, mode and compression that we can write, by name."""
    Image.init()
    drawn = draw(seed, 0).image.convert("RGB").resize((40, 32))
    made = {}
    for form in sorted(Image.SAVE):
        for mode in _MODES:
            for number, options in enumerate(_OPTIONS.get(form, ({},))):
                if options.get("compression") == "jpeg" and mode not in ("RGB", "L", "CMYK"):
                    continue  # libtiff would complain on standard error
                file = io.BytesIO()
                try:
                    with warnings.catch_warnings(action="ignore"):
                        grey = drawn.convert("L").convert("I")
                        source = grey.convert("I;16") if mode == "I;16" else drawn.convert(mode)
                        source.save(file, form, **options)
                except Exception:  # a mode that the format lacks, or one that Pillow has no writer for
                    continue
                made[f"{form}-{mode}-{number}".replace(";", "")] = file.getvalue()
    return made | plugin_pictures.every_form(drawn)


def write_mutated(folder: Path, count: int, seed: int) -> list[Bad]:
    """Writes `count` spoiled files and returns what they are."""
    sources = every_format(seed)
    names, contents, kinds = list(sources), list(sources.values()), list(MUTATIONS)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        random = np.random.RandomState([seed, number])
        which, kind = number % len(names), kinds[random.randint(len(kinds))]
        name = f"{number:05}-{names[which]}.jpg"
        (folder / name).write_bytes(mutated(contents[which], kind, random, contents))
        made.append(Bad(f"{folder.name}/{name}", kind, None))
    return made


def write_crafted(folder: Path, count: int, seed: int) -> list[Bad]:
    """Writes `count` files that claim or cost much, or whose samples have more than eight bits; of each kind some."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        kind, how, content = draw_crafted(number, seed)
        name = f"crafted {number:05}.jpg"
        (folder / name).write_bytes(content)
        made.append(Bad(f"{folder.name}/{name}", kind, how.usable, how.is_noted))
    return made


def write_large(folder: Path) -> list[Bad]:
    """Writes HEIC and JPEG XL of a few kilobytes that decode to hundreds of megabytes: they take a minute to make."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for form, width, height, mode, usable in (
        ("heic", 5000, 5000, "RGB", True),
        ("jxl", 9600, 9400, "RGB", False),
        ("jxl", 9400, 9400, "RGB", None),
        ("jxl", 9400, 9400, "L", None),
        ("jxl", 7000, 7000, "RGBA", None),
    ):
        name = f"{form} {mode} {width} by {height}.jpg"
        (content,) = plugin_pictures.encoded([(form, ((mode, width, height),), {})])
        (folder / name).write_bytes(content)
        made.append(Bad(f"{folder.name}/{name}", "HEIC and JPEG XL: many pixels in few bytes", usable))
    return made


def write_classics(folder: Path, seed: int) -> list[Bad]:
    """Writes the pictures and the things in their place that downloads are known for."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(seed, 1).image.convert("RGB").resize((64, 48))
    made: list[Bad] = []

    def add(name: str, content: bytes | None, usable: bool | None) -> None:
        if content is not None:
            (folder / name).write_bytes(content)
        made.append(Bad(f"{folder.name}/{name}", name.rpartition(".")[0], usable))

    def saved(image: Image.Image, form: str, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    jpeg, png = saved(drawn, "JPEG"), saved(drawn, "PNG")
    add("zero bytes.jpg", b"", False)
    add("nothing but zeros.jpg", bytes(5000), False)
    add("a page.jpg", b"<!DOCTYPE html><html>404</html>", False)
    add("a pointer of Git LFS.jpg", b"version https://git-lfs.github.com/spec/v1\n", False)
    add("wrong extension.jpg", png, True)
    add("wrong extension the other way.png", jpeg, True)
    add("1x1.png", saved(drawn.resize((1, 1)), "PNG"), True)
    add("1x20000.png", saved(drawn.resize((1, 20_000)), "PNG"), True)
    add("20000x1.jpg", saved(drawn.resize((20_000, 1)), "JPEG"), True)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"EXIF rotation {orientation}.jpg", saved(drawn, "JPEG", exif=exif), True)
    add("broken EXIF.jpg", saved(drawn, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12x"), True)
    add("CMYK.jpg", saved(drawn.convert("CMYK"), "JPEG"), True)
    add("16 bit.png", saved(drawn.convert("L").convert("I").convert("I;16"), "PNG"), True)
    add("16 bit.tif.jpg", saved(drawn.convert("L").convert("I").convert("I;16"), "TIFF"), True)
    add("palette with transparency.png", saved(drawn.convert("P"), "PNG", transparency=bytes(range(200))), True)
    add("transparency.png", saved(drawn.convert("LA"), "PNG"), True)
    frames = [drawn.rotate(angle) for angle in (90, 180)]
    add("animated.gif.jpg", saved(drawn, "GIF", save_all=True, append_images=frames), True)
    add("animated.webp.jpg", saved(drawn, "WEBP", save_all=True, append_images=frames), True)
    add("animated.png", saved(drawn, "PNG", save_all=True, append_images=frames), True)
    add("several pages.tif.jpg", saved(drawn, "TIFF", save_all=True, append_images=frames), True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    add("ICC profile.jpg", saved(drawn, "JPEG", icc_profile=profile), True)
    add("ICC profile of noise.png", saved(drawn, "PNG", icc_profile=os.urandom(3000)), True)
    # Decompression bombs: beyond our limit, beyond Pillow's, a header that only claims it, an icon with one inside.
    flat = saved(Image.new("1", (20_000, 4_500)), "PNG")
    add("decompression bomb.png", flat, False)
    claims = bytearray(png)
    claims[16:24] = struct.pack(">II", 60_000, 60_000)
    claims[29:33] = struct.pack(">I", zlib.crc32(claims[12:29]))
    add("decompression bomb that only claims it.png", bytes(claims), False)
    head = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(flat), 22)
    add("decompression bomb in an icon.jpg", head + flat, False)
    near = saved(Image.new("L", (9_400, 9_400)), "PNG")
    for number in range(4):
        add(f"at the limit, {number}.png", near, True)
    add("text chunks that unpack.png", _with_text_bomb(png), None)
    # What is no file.
    (folder / "a directory.jpg").mkdir()
    add("a directory.jpg", None, False)
    (folder / "dangling link.jpg").symlink_to(folder / "nowhere.jpg")
    add("dangling link.jpg", None, False)
    (folder / "link to itself.jpg").symlink_to(folder / "link to itself.jpg")
    add("link to itself.jpg", None, False)
    os.mkfifo(folder / "a pipe.jpg")
    add("a pipe.jpg", None, False)
    (folder / "link to a device.jpg").symlink_to("/dev/zero")
    add("link to a device.jpg", None, False)
    with (folder / "a terabyte.jpg").open("wb") as file:
        file.truncate(2**40)
    add("a terabyte.jpg", None, False)
    (folder / "loop").symlink_to(folder)
    with open(os.fsencode(folder) + b"/name that is not UTF-8 \xe9.jpg", "wb") as raw:
        raw.write(jpeg)
    add(os.fsdecode(b"name that is not UTF-8 \xe9.jpg"), None, True)
    add("name with a\nline break.jpg", jpeg, True)
    add('name with "quotes", and commas.jpg', jpeg, True)
    return made


def _with_text_bomb(png: bytes) -> bytes:
    chunk = b"zTXt" + b"key\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    return png[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
