"""HEIC and JPEG XL by the encoders of Pillow's plug-ins, and files of theirs that claim or cost much.

The encoders run in a process of their own: importing a plug-in changes Pillow for everything in the process.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from faults.processes import ROOT, environment

Job = tuple[str, tuple[Image.Image | tuple[str, int, int], ...], dict[str, Any]]
"""`heic` or `jxl`; pictures, or mode, width and height of blank ones; and options."""


def encoded(jobs: Sequence[Job]) -> list[bytes]:
    """Returns a file for each job."""
    command = [sys.executable, "-m", "faults.plugin_pictures"]
    done = subprocess.run(command, input=pickle.dumps(jobs), stdout=subprocess.PIPE, env=environment(ROOT), check=True)
    return pickle.loads(done.stdout)


def _heic(*images: Image.Image) -> bytes:
    from pillow_heif import HeifFile

    file, made = io.BytesIO(), HeifFile()
    for image in images:
        made.add_from_pillow(image)
    made.save(file, quality=60, enc_params={"preset": "ultrafast"})
    return file.getvalue()


def _jxl(image: Image.Image, *, lossless: bool = False, container: bool = False, jpeg: bytes = b"") -> bytes:
    from pillow_jxl import Encoder

    encode = Encoder(
        mode=image.mode,
        lossless=lossless,
        quality=100 if lossless else 80,
        decoding_speed=0,
        effort=1,
        use_container=container,
        use_original_profile=False,
        num_threads=1,
    )
    if jpeg:  # its coefficients, from which the JPEG can be made again
        return encode(jpeg, *image.size, jpeg_encode=True)
    about = {"exif": None, "jumb": None, "xmp": None, "compress": False}
    return encode(image.tobytes(), *image.size, jpeg_encode=False, **about)


def every_form(drawn: Image.Image) -> dict[str, bytes]:
    """Returns a picture in the modes and ways of coding that the encoders know, by name."""
    file = io.BytesIO()
    drawn.save(file, "JPEG")
    deep = Image.fromarray(np.asarray(drawn.convert("L")).astype(np.uint16) * 257)
    jobs: dict[str, Job] = {"HEIC-several": ("heic", (drawn, drawn.rotate(90)), {})}
    for mode in ("RGB", "RGBA", "L", "LA"):
        jobs[f"HEIC-{mode}"] = ("heic", (drawn.convert(mode),), {})
        jobs[f"JXL-{mode}"] = ("jxl", (drawn.convert(mode),), {})
        jobs[f"JXL-{mode}-lossless"] = ("jxl", (drawn.convert(mode),), {"lossless": True})
    jobs["JXL-I16"] = ("jxl", (deep,), {"lossless": True})
    jobs["JXL-container"] = ("jxl", (drawn,), {"container": True})
    jobs["JXL-of-JPEG"] = ("jxl", (drawn,), {"jpeg": file.getvalue()})
    return dict(zip(jobs, encoded(list(jobs.values())), strict=True))


@functools.cache
def _tile_and_wide() -> tuple[bytes, bytes]:
    tile, wide = encoded([("heic", (("RGB", 64, 64),), {}), ("jxl", (("RGB", 8200, 700),), {})])
    return tile, wide


def jxl_that_claims(width: int, height: int) -> bytes:
    """Returns a JPEG XL of 8,200 by 700 pixels whose header claims another size (up to 262,144 by 8,192)."""
    data = _tile_and_wide()[1]
    bits = int.from_bytes(data[2:], "little")
    # Behind the signature: not by eights (1 bit), height of 13 bits (2, 13), no ratio (3), width of 18 bits (2, 18).
    if bits & 0b111 != 0b010 or bits >> 16 & 0b11111 != 0b10000:
        raise AssertionError("the encoder writes its header in another way")
    bits = bits & ~(0x1FFF << 3) | height - 1 << 3
    bits = bits & ~(0x3FFFF << 21) | width - 1 << 21
    return data[:2] + bits.to_bytes(len(data) - 2, "little")


def heic_that_claims(width: int, height: int) -> bytes:
    """Returns a HEIC of 64 by 64 pixels whose container claims another size."""
    data = bytearray(_tile_and_wide()[0])
    struct.pack_into(">II", data, data.index(b"ispe") + 8, width, height)
    return bytes(data)


def heic_grid(across: int, down: int) -> bytes:
    """Returns a HEIC whose picture is a grid of one tile of 64 by 64 pixels, again and again (up to 255 by 255)."""
    tile = _tile_and_wide()[0]
    properties = tile[tile.index(b"ipco") + 4 :]
    hvcc = properties[: int.from_bytes(properties[:4], "big")]
    coded = tile[tile.index(b"mdat") + 4 :]

    def size(width: int, height: int) -> bytes:
        return _box(b"ispe", struct.pack(">III", 0, width, height))

    grid = struct.pack(">BBBBII", 0, 1, down - 1, across - 1, 64 * across, 64 * down)
    kinds = ((1, b"grid"), (2, b"hvc1"))
    infos = b"".join(_box(b"infe", struct.pack(">IHH", 2 << 24, number, 0) + kind + b"\0") for number, kind in kinds)
    parts = _box(b"dimg", struct.pack(">HH", 1, across * down) + struct.pack(">H", 2) * (across * down))
    owned = _box(b"ipco", hvcc + size(64, 64) + size(64 * across, 64 * down))
    belong = struct.pack(">II", 0, 2) + struct.pack(">HBB", 1, 1, 3) + struct.pack(">HBBB", 2, 2, 0x81, 2)

    def made(start: int) -> bytes:
        places = struct.pack(">IHH", 0, 0x4400, 2)
        places += struct.pack(">HHHII", 1, 0, 1, start, len(grid))
        places += struct.pack(">HHHII", 2, 0, 1, start + len(grid), len(coded))
        meta = _box(b"hdlr", bytes(8) + b"pict" + bytes(13)) + _box(b"pitm", struct.pack(">IH", 0, 1))
        meta += _box(b"iloc", places) + _box(b"iinf", struct.pack(">IH", 0, 2) + infos)
        meta += _box(b"iref", bytes(4) + parts) + _box(b"iprp", owned + _box(b"ipma", belong))
        return _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + _box(b"meta", bytes(4) + meta)

    return made(len(made(0)) + 8) + _box(b"mdat", grid + coded)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


if __name__ == "__main__":
    encoders = {"heic": _heic, "jxl": _jxl}
    made = []
    for form, images, options in pickle.load(sys.stdin.buffer):
        pictures = [Image.new(one[0], one[1:]) if isinstance(one, tuple) else one for one in images]
        made.append(encoders[form](*pictures, **options))
    sys.stdout.buffer.write(pickle.dumps(made))
