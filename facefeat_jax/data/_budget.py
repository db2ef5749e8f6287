"""Memory that threads share: for the files that they read, and for decoding them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from facefeat_jax.system.files import only_one

MAX_FILE_BYTES = 2**28
"""Larger files are no pictures; an archive may claim any size."""

MAX_DECODER_BYTES = 2**30
"""The most that one picture may take for decoding."""


_FEW = 2**22  # bytes that are not counted among processes: nearly all pictures take less
_POLL_SECONDS = 0.002
_NOTHING = nullcontext()


class Budget:
    """Bytes that several threads share: who wants more than is left waits, in the order of asking.

    Processes share them too, after each has called `share`.

    Args:
      most: that are given out at a time.
    """

    def __init__(self, most: int):
        self._most = most
        self._held = 0
        self._turn = threading.Lock()  # held by whoever waits
        self._lock = threading.Lock()  # of `_held`
        self._changed = threading.Condition(self._lock)
        self._count: Path | None = None

    def share(self, count: Path) -> None:
        """Counts in a file, from now on, what all processes that name the same one hold.

        One that is killed never gives back what it held: whoever started the processes must end the others.
        """
        self._count = count

    @contextmanager
    def _of_all_processes(self, count: Path, wanted: int) -> Iterator[None]:
        # Whoever waits holds the turn, so that many small shares don't keep a large one waiting.
        with only_one(count.with_suffix(".turn"), waiting=lambda _: None, poll_s=_POLL_SECONDS):
            while not self._counted(count, wanted):
                time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            self._counted(count, -wanted)

    def _counted(self, count: Path, more: int) -> bool:
        with only_one(count.with_suffix(".lock"), waiting=lambda _: None, poll_s=_POLL_SECONDS):
            held = (int(count.read_text() or 0) if count.exists() else 0) + more
            if held > self._most:
                return False
            count.write_text(str(held))
            return True

    def holding(self, count: int) -> AbstractContextManager[Callable[[int], None]]:
        """Holds so many bytes; more than there are at all count as all of them.

        Gives a function that takes a smaller number of bytes, to be held from then on.
        """
        return _Share(self, min(count, self._most))

    def _among_processes(self, count: int) -> AbstractContextManager[None]:
        return _NOTHING if self._count is None or count <= _FEW else self._of_all_processes(self._count, count)

    def _take(self, count: int) -> None:
        with self._turn, self._lock:
            while self._held + count > self._most:
                self._changed.wait()
            self._held += count

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._held -= count
            self._changed.notify_all()


class _Share:
    """Bytes of a budget while they are held; see `Budget.holding`."""

    def __init__(self, budget: Budget, count: int):
        self._budget, self._held = budget, count
        self._counted = budget._among_processes(count)

    def __enter__(self) -> Callable[[int], None]:
        self._budget._take(self._held)
        try:
            self._counted.__enter__()
        except BaseException:
            self._keep(0)
            raise
        return self._keep

    def __exit__(self, *error: Any) -> None:
        try:
            self._counted.__exit__(*error)
        finally:
            self._keep(0)

    def _keep(self, fewer: int) -> None:
        if fewer < self._held:
            self._budget._give_back(self._held - fewer)
            self._held = fewer


# Whoever holds a share of both took that of `FILES` first, so that no two can wait for each other.
FILES = Budget(MAX_FILE_BYTES)
"""For picture files of this process, from before they are read until they are decoded."""

# Less than the most of one picture, which then decodes alone: what several leave behind in the heap comes on top.
DECODING = Budget(MAX_DECODER_BYTES * 3 // 4)
"""For all decoding of this process."""
