"""Random draws whose stream is frozen: the same (seed, index, name) gives the same numbers on any machine, for ever."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = struct.Struct("<64Q")


class Dice:
    """A named stream of random numbers for one picture.

    Each part of a picture throws dice of its own name, so a part that learns to throw once more does not change the
    others. The numbers are bytes of SHAKE-128, a published standard: no library's generator can change under them, and
    starting a stream costs a microsecond (a fresh `RandomState` fifty).

    Args:
      seed: the data set's seed; any integer.
      index: the picture's number; any integer.
      name: the part that throws.
    """

    def __init__(self, seed: int, index: int, name: str) -> None:
        self._key = f"facefeat avatars/{int(seed)}/{int(index)}/{name}".encode()
        self._numbers = self._throw()

    def _throw(self) -> Iterator[float]:
        block = 0
        while True:
            for word in _BLOCK.unpack(hashlib.shake_128(b"%s/%d" % (self._key, block)).digest(_BLOCK.size)):
                yield (word >> 11) * 2.0**-53
            block += 1

    def unit(self) -> float:
        """Returns a number in [0, 1)."""
        return next(self._numbers)

    def uniform(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * self.unit()

    def around(self, centre: float, reach: float) -> float:
        """Returns a number within `reach` of `centre`, the middle more often than the ends."""
        return centre + reach * (self.unit() + self.unit() - 1.0)

    def chance(self, probability: float) -> bool:
        """Returns True with this probability."""
        return self.unit() < probability

    def whole(self, low: int, high: int) -> int:
        """Returns a whole number from low to high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """Returns one of the options, each as likely."""
        return options[int(self.unit() * len(options))]

    def weighted(self, **options: float) -> str:
        """Returns one of the names, as likely as its weight says."""
        left = self.unit() * sum(options.values())
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        return option

    def order(self, count: int) -> list[int]:
        """Returns 0 ... count-1, shuffled."""
        keys = [self.unit() for _ in range(count)]
        return sorted(range(count), key=keys.__getitem__)

    def grain(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns film grain: float32 of mean 0 and standard deviation 1 (triangular, a sum of two bytes)."""
        raw = hashlib.shake_128(b"%s/grain/%s" % (self._key, repr(shape).encode())).digest(2 * int(np.prod(shape)))
        pair = np.frombuffer(raw, dtype=np.uint8).reshape((2, *shape))
        return (pair[0].astype(np.float32) + pair[1] - np.float32(255.0)) / np.float32(104.5)
