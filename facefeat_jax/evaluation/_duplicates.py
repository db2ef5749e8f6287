"""Pictures that are there twice: the same file, the same pixels, or nearly the same picture.

Near duplicates are found by a perceptual hash (imagehash's `phash`: the signs of the lowest frequencies of a picture of
32 by 32, 64 bits), which survives another size and another quality. It sees no colour, and shop photographs of one
model in one pose look alike to it whatever is worn, so two pictures that differ in few bits are compared again as
coloured thumbnails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from facefeat_jax.data._worker_threads import worker_threads
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.images import decode
from facefeat_jax.system.progress import Bar

NEAR_BITS = 8
"""Bits of 64 in which the hashes of nearly the same pictures may differ."""

NEAR_LEVELS = 4.0
"""Mean difference of their thumbnails' colours, in levels of 255, at most."""

Kind = Literal["file", "pixels", "near"]

_SIDE = 16  # of the thumbnails
_AT_A_TIME = 2**22  # pairs compared at a time
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Prints:
    """The fingerprints of pictures."""

    files: np.ndarray  # `[n]`, SHA-256 of each file, str
    pixels: np.ndarray  # `[n]`, SHA-256 of the decoded picture and its size, str
    hashes: np.ndarray  # `[n]`, uint64, perceptual
    thumbnails: np.ndarray  # `[n, 768]`, uint8, of 16 by 16 in RGB


@dataclass(frozen=True)
class Pair:
    """Two pictures that are the same, or nearly."""

    kind: Kind  # `file`: the same bytes; `pixels`: other bytes, the same picture; `near`: nearly the same
    first: int  # number of the first picture
    second: int  # number of the second picture, which is greater
    bits: int  # in which their perceptual hashes differ
    levels: float  # mean difference of their thumbnails' colours, of 255


def take_prints(parts: Sequence[Examples], *, threads: int = 4) -> Prints:
    """Reads, decodes and hashes all pictures, one part after the other.

    Raises:
      BadImageError: a picture does not decode.
      ImportError: imagehash is not installed.
    """
    import imagehash
    from PIL import Image

    def fingerprint(place: tuple[Examples, int]) -> tuple[str, str, int, np.ndarray]:
        examples, index = place
        with examples.opened(index) as data:
            image = decode(data, "upright")
            file = hashlib.sha256(data).hexdigest()
        pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        bits = imagehash.phash(image).hash.ravel()
        small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)).ravel()
        number = int.from_bytes(np.packbits(bits).tobytes(), "big")
        return file, pixels, number, small

    places = [(examples, index) for examples in parts for index in range(len(examples))]
    found: list[tuple[str, str, int, np.ndarray]] = []
    with Bar("comparing pictures", len(places)) as bar, worker_threads(threads) as pool:
        for start in range(0, len(places), _BATCH):
            found += pool.map(fingerprint, places[start : start + _BATCH])
            bar.advance(len(found) - start)
    files, pixels, hashes, thumbnails = zip(*found, strict=True) if found else ((), (), (), ())
    return Prints(
        np.array(files, dtype=str),
        np.array(pixels, dtype=str),
        np.array(hashes, np.uint64),
        np.array(thumbnails, np.uint8).reshape(len(places), 3 * _SIDE**2),
    )


def find_pairs(prints: Prints, *, bits: int = NEAR_BITS, most: float = NEAR_LEVELS) -> list[Pair]:
    """Returns all pairs of pictures that are the same or nearly the same, by their numbers.

    Args:
      prints: fingerprints of the pictures.
      bits: in which the hashes of nearly the same pictures may differ.
      most: mean difference that their thumbnails may have, in levels of 255.
    """
    found = []
    for first, second in _close(prints.hashes, bits):
        thumbnails = (prints.thumbnails[number].astype(np.int16) for number in (first, second))
        levels = float(np.abs(np.subtract(*thumbnails)).mean())
        distance = int(np.bitwise_count(prints.hashes[first] ^ prints.hashes[second]))
        if prints.files[first] == prints.files[second]:
            found.append(Pair("file", first, second, distance, levels))
        elif prints.pixels[first] == prints.pixels[second]:
            found.append(Pair("pixels", first, second, distance, levels))
        elif levels <= most:
            found.append(Pair("near", first, second, distance, levels))
    return found


def _close(hashes: np.ndarray, bits: int) -> Iterator[tuple[int, int]]:
    """Yields the numbers of each two pictures whose hashes differ in few bits."""
    rows = max(1, _AT_A_TIME // max(1, len(hashes)))
    for start in range(0, len(hashes), rows):
        block = hashes[start : start + rows]
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        first, second = np.nonzero(distance <= bits)
        later = second > first
        yield from zip((start + first[later]).tolist(), (start + second[later]).tolist(), strict=True)
