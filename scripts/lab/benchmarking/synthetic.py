"""Downloads made here: the three data sets' layouts and sizes, with pictures that cost what photographs cost to decode.

The pictures are noise with the spectrum of photographs (amplitude falls as 1/f), cut anew for each file out of more
than a hundred larger ones: as JPEG they hold about as many bytes as photographs of that size do. They show nothing;
only speed and memory can be measured on them. Every picture is a function of its number.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarking.pictures import write_fairface_table
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import Bar
from facefeat_jax.tasks import SHIRT_CLASSES

SIDE = 224
_CANVAS_MARGIN = 96
_NUM_CANVASES = 128
_QUALITY = 82

_RACES = ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White")
_QUOTA = {"train": 2400, "val": 600}
_SHORT_GROUP = ("val", "Middle Eastern", "Female"), 396  # FairFace has no more of them
_GLASSES = {"glasses": 2769, "no_glasses": 2151}
_APPAREL = 6955
_GARMENTS = ("shirt", "dress")  # two for each colour but the last: fifteen folders


def write_downloads(out: Path, fraction: float, distinct: int | None = None) -> int:
    """Writes the three downloads, `fairface/`, `glasses/` and `apparel/`.

    Args:
      out: a folder.
      fraction: of the full size, 41,796 + 4,920 + 6,955 pictures.
      distinct: how many of the pictures differ; the others are these under further names. None: all of them.

    Returns:
      The number of pictures.

    Raises:
      UserError: the fraction is not positive or so small that a class would have too few pictures.
    """
    if not 0 < fraction <= 4:
        raise UserError(f"--synthetic takes the fraction of the full size, more than 0 and at most 4, got {fraction}")
    files: list[Path] = []
    for split in _QUOTA:
        rows = list(_fairface_rows(split, fraction))
        write_fairface_table(out / "fairface", split, rows)
        files += [out / "fairface" / row[0] for row in rows]
    for folder, count in _GLASSES.items():
        files += [out / "glasses/Images" / folder / f"{n:05}.jpg" for n in range(_scaled(count, fraction))]
    folders = [f"{colour}_{garment}" for garment in _GARMENTS for colour in SHIRT_CLASSES][:15]
    for number in range(_scaled(_APPAREL, fraction, least=5 * len(folders))):
        files.append(out / "apparel" / folders[number % len(folders)] / f"{number:05}.jpg")
    for parent in {file.parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    originals = files[: distinct or len(files)]
    with Bar("making pictures", len(originals)) as bar:
        _write(originals, lambda number: jpeg(number, SIDE), bar.advance)
    for number, file in enumerate(files[len(originals) :]):
        _link(originals[number % len(originals)], file)
    return len(files)


def write_faces(out: Path, train: int, val: int, side: int) -> None:
    """Writes a `fairface/` of any size on little disk: its many files are few, under many names (hard links).

    Args:
      out: a folder.
      train: pictures to train on.
      val: pictures to validate on.
      side: of the pictures, in pixels.
    """
    originals = [out / "fairface" / f"original{number}.bin" for number in range(min(200, train))]
    originals[0].parent.mkdir(parents=True, exist_ok=True)
    _write(originals, lambda number: jpeg(number, side))
    for split, count in (("train", train), ("val", val)):
        (out / "fairface" / split).mkdir()
        names = [f"{split}/{number:06}.jpg" for number in range(count)]
        # Races are any text; enough of them that no group is over its quota.
        rows = ((name, "20-29", ("Male", "Female")[n % 2], f"group {n // 1000}") for n, name in enumerate(names))
        write_fairface_table(out / "fairface", split, rows)
        for number, name in enumerate(names):
            _link(originals[number % len(originals)], out / "fairface" / name)


def _link(original: Path, name: Path) -> None:
    try:
        os.link(original, name)
    except OSError:  # a file system without links, or with a low limit on them
        name.write_bytes(original.read_bytes())


def _fairface_rows(split: str, fraction: float) -> Iterator[tuple[str, str, str, str]]:
    number = 0
    for gender in ("Male", "Female"):
        for race in _RACES:
            full = _SHORT_GROUP[1] if (split, race, gender) == _SHORT_GROUP[0] else _QUOTA[split]
            for _ in range(_scaled(full, fraction)):
                number += 1
                yield f"{split}/{number}.jpg", "20-29", gender, race


def _scaled(count: int, fraction: float, least: int = 5) -> int:
    return max(least, round(count * fraction))


def _write(files: list[Path], make: Callable[[int], bytes], advance: Callable[[int], None] = lambda _: None) -> None:
    make(0)  # the canvases, drawn by one thread

    def write(number: int) -> None:
        files[number].write_bytes(make(number))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, range(len(files))):
            advance(1)


def jpeg(number: int, side: int) -> bytes:
    """Returns the picture of that number, `side` pixels wide and high, as a JPEG file."""
    dice = np.random.RandomState(number)
    canvas = _canvases(side)[dice.randint(len(_canvases(side)))]
    top, left = dice.randint(0, canvas.shape[0] - side, 2)
    pixels = canvas[top : top + side, left : left + side]
    if dice.randint(2):
        pixels = pixels[:, ::-1]
    brightness = np.clip(np.arange(256) * dice.uniform(0.7, 1.2) + dice.uniform(-20, 20), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(brightness[pixels]).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


@cache
def _canvases(side: int) -> list[np.ndarray]:
    """Returns pictures somewhat larger than `side`, uint8 RGB, to be cut out of."""
    full = side + max(1, _CANVAS_MARGIN * side // SIDE)
    frequency = np.hypot(np.fft.fftfreq(full)[:, None], np.fft.rfftfreq(full)[None]) * full
    amplitude = 1 / np.maximum(frequency, 1) ** 1.15

    def draw(number: int) -> np.ndarray:
        dice = np.random.RandomState(10**6 + number)
        planes = [
            np.fft.irfft2(amplitude * np.exp(2j * np.pi * dice.random_sample(amplitude.shape)), (full, full))
            for _ in range(3)
        ]
        luma, red, blue = (plane / plane.std() for plane in planes)
        # Colour varies less than light does.
        channels = np.stack([luma + 0.35 * red, luma, luma + 0.35 * blue], -1)
        return np.clip(channels * 55 + 120, 0, 255).astype(np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(draw, range(_NUM_CANVASES)))
