"""Locks between processes. The system drops them with their holder, however that ends: none goes stale.

Not the package filelock: it would be one more dependency; where a file system has no locks, its own kind stays behind a
process that was killed; and it refuses links and, in some versions, empties the file, which may be the user's answers.
"""

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
def only_one(
    path: Path, *, waiting: Callable[[float], object] | None = None, poll_s: float = _POLL_S
) -> Iterator[None]:
    """Holds a lock among processes and threads.

    Args:
      path: the lock's file; it is made, and stays.
      waiting: where another one holds the lock, it is waited for, and this is called before every new attempt with the
        seconds waited so far, at first 0. It may raise, to give up.
      poll_s: seconds between attempts.

    Raises:
      BlockingIOError: another one holds the lock, and `waiting` is not given.
      OSError: the lock's file can't be made.
    """
    with open(path, "ab") as file:
        began = None
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting is None:
                    raise
                now = time.monotonic()
                began = now if began is None else began
                waiting(now - began)
                time.sleep(poll_s)
            except OSError:
                break  # a file system without locks
        yield
