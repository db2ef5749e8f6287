"""Reading files that others made: never a pipe or a device, never more than a limit."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def read_regular(path: str | Path, most_bytes: int, *, before: Callable[[int], object] = lambda size: None) -> bytes:
    """Returns the content of a regular file; anything else is refused before it can block or go on without end.

    Args:
      path: the file; links are followed.
      most_bytes: the largest size that is read.
      before: called with the file's size before it is read.

    Raises:
      OSError: it can't be read, is no regular file (a pipe, a device, a folder) or is larger; `strerror` says which.
      ValueError: no file can have that name.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"larger than {most_bytes >> 20} MiB", os.fspath(path))
        before(size)
        # What grows meanwhile is cut here, and refused by whoever decodes it.
        # (Some file systems, such as /proc, give the size as 0.)
        return file.read(size or most_bytes)


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading, and closes it afterwards.

    Raises:
      OSError: it can't be opened, or is no regular file.
      ValueError: no file can have that name.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it. (Windows has O_BINARY instead.)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        yield file
