"""Locks between processes. The system drops them with their holder, however that ends: none goes stale."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this system: go on without
    fcntl = None  # type: ignore[assignment]

_POLL_S = 0.2


@contextlib.contextmanager
def only_one(path: Path, *, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Holds a lock among processes and threads.

    Args:
      path: the lock's file; it is made, and stays.
      waiting: called once where another one holds the lock, which is then waited for.

    Raises:
      BlockingIOError: another one holds the lock, and `waiting` is not given.
      OSError: the lock's file can't be made.
    """
    with open(path, "ab") as file:
        told = False
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting is None:
                    raise
                if not told:
                    waiting()
                    told = True
                time.sleep(_POLL_S)
            except OSError:
                break  # a file system without locks
        yield
