"""Memory that threads share: for the files that they read, and for decoding them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_FILE_BYTES = 2**28
"""Larger files are no pictures; an archive may claim any size."""

MAX_DECODER_BYTES = 2**30
"""The most that one picture may take for decoding."""


class Budget:
    """Bytes that several threads share: who wants more than is left waits, in the order of asking.

    Args:
      most: that are given out at a time.
    """

    def __init__(self, most: int):
        self._most = most
        self._held = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, count: int) -> Iterator[Callable[[int], None]]:
        """Holds so many bytes; more than there are at all count as all of them.

        Gives a function that takes a smaller number of bytes, to be held from then on.
        """
        held = min(count, self._most)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._held + held <= self._most)
            self._held += held

        def keep(fewer: int) -> None:
            nonlocal held
            with self._changed:
                self._held -= held - min(fewer, held)
                held = min(fewer, held)
                self._changed.notify_all()

        try:
            yield keep
        finally:
            keep(0)


# Whoever holds a share of both took that of `FILES` first, so that no two can wait for each other.
FILES = Budget(MAX_FILE_BYTES)
"""For picture files of this process, from before they are read until they are decoded."""

# Less than the most of one picture, which then decodes alone: what several leave behind in the heap comes on top.
DECODING = Budget(MAX_DECODER_BYTES * 3 // 4)
"""For all decoding of this process."""
