"""Spoiling the bytes of a file, in the ways in which files are spoiled."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np

Random = np.random.RandomState


def _flip(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    for _ in range(random.randint(1, 9)):
        data[random.randint(len(data))] ^= 1 << random.randint(8)


def _flip_head(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    for _ in range(random.randint(1, 5)):
        data[random.randint(min(128, len(data)))] = random.randint(256)


def _cut(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    del data[random.randint(len(data)) :]


def _splice(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    other = others[random.randint(len(others))]
    length = random.randint(4, 200)
    data[:length] = other[:length]


def _lie(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    """Puts extreme numbers where a length, an offset or a size may stand."""
    for _ in range(random.randint(1, 3)):
        at = random.randint(min(512, len(data)))
        value = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[random.randint(8)]
        form = ("<I", ">I", "<H", ">H")[random.randint(4)]
        raw = struct.pack(form, value & (0xFFFFFFFF if form[1] == "I" else 0xFFFF))
        data[at : at + len(raw)] = raw


def _lose(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    at = random.randint(len(data))
    del data[at : at + random.randint(1, max(2, len(data) // 4))]


def _zero(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    at = random.randint(len(data))
    length = min(random.randint(1, max(2, len(data) // 2)), len(data) - at)
    data[at : at + length] = bytes(length)


def _repeat(data: bytearray, random: Random, others: Sequence[bytes]) -> None:
    at = random.randint(len(data))
    data[at:at] = data[at : at + random.randint(1, 2000)] * random.randint(1, 4)


MUTATIONS: dict[str, Callable[[bytearray, Random, Sequence[bytes]], None]] = {
    "bits flipped": _flip,
    "bytes of the header changed": _flip_head,
    "cut": _cut,
    "header of another file": _splice,
    "lengths that lie": _lie,
    "a piece lost": _lose,
    "a piece zeroed": _zero,
    "a piece repeated": _repeat,
}


def mutated(data: bytes, kind: str, random: Random, others: Sequence[bytes]) -> bytes:
    """Returns the bytes spoiled in one way; `others` are the files that a header may come from."""
    changed = bytearray(data)
    MUTATIONS[kind](changed, random, others)
    return bytes(changed)
