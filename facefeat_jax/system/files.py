"""Files: when two names are the same, reading what others made, writing whole or not at all, locks between processes.

Names are compared by one rule, for label tables, lists of boxes and the names of a command. The path is normalised as
text (`./a//b` is `a/b`, `x/../a` is `a`); nothing is looked up on disk, so two links to one file stay two names. Names
that are spelled alike are the same. Where none is, `\\` counts as `/`, and composed letters (NFC, what most systems
write) as decomposed ones (NFD, what macOS's archives hold). Case and blanks count.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import secrets
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Generic, TypeVar

from facefeat_jax.system.text import format_size

try:
    import fcntl
except ImportError:  # no such locks on this system: go on without
    fcntl = None  # type: ignore[assignment]

Value = TypeVar("Value")
_LOCK_POLL_S = 0.2


def spelled(name: str) -> str:
    """Returns a name with its path normalised, as text."""
    if "/." not in name and "//" not in name and name[:1] not in (".", "/") and name[-1:] != "/":
        return name  # as nearly all are
    path = posixpath.normpath(name)
    return path[1:] if path.startswith("//") else path


def identity(name: str) -> str:
    """Returns a key that is equal for names of the same file: it treats `\\` as `/`, and NFC like NFD."""
    return unicodedata.normalize("NFC", spelled(name.replace("\\", "/")))


class ByName(Generic[Value]):
    """Values by file name, found by the rule of this module; a name may have several."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[Value]]] = {}

    def add(self, name: str, value: Value) -> None:
        """Adds a value under a name."""
        self._values.setdefault(identity(name), {}).setdefault(spelled(name), []).append(value)

    def find(self, name: str) -> list[Value]:
        """Returns the values of the same name, in the order in which they were added; none where there is no such."""
        alike = self._values.get(identity(name), {})
        exact = alike.get(spelled(name))
        return list(exact) if exact else [value for values in alike.values() for value in values]

    def __iter__(self) -> Iterator[Value]:
        """Yields all values."""
        return (value for alike in self._values.values() for values in alike.values() for value in values)


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
    descriptor, size = _open_regular(path)
    try:
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"larger than {format_size(most_bytes)}", os.fspath(path))
        before(size)
        # What grows meanwhile is cut here, and refused by whoever decodes it.
        # (Some file systems, such as /proc, give the size as 0.)
        parts, left = [], size or most_bytes
        while left and (part := os.read(descriptor, min(left, size or 2**20))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading, and closes it afterwards.

    Raises:
      OSError: it can't be opened, or is no regular file.
      ValueError: no file can have that name.
    """
    with open(_open_regular(path)[0], "rb") as file:
        yield file


def _open_regular(path: str | Path) -> tuple[int, int]:
    """Returns a descriptor of a regular file, and its size."""
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it. (Windows has O_BINARY instead.)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def sha256_of(path: Path) -> str | None:
    """Returns the SHA-256 of a file in hexadecimal digits; None where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_whole(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> Path:
    """Writes a file beside its place and moves it there once it is on disk; readers never see half of it.

    Args:
      path: the file. An older one of that name stays until the new one is complete.
      content: its bytes, or a function that writes them into an open file.

    Returns:
      `path`.

    Raises:
      OSError: the file can't be written; nothing of it stays.
    """
    target = Path(os.path.realpath(path))  # through a link, as an ordinary write would go
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced; the file itself is
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


@contextlib.contextmanager
def only_one(
    path: Path, *, waiting: Callable[[float], object] | None = None, poll_s: float = _LOCK_POLL_S
) -> Iterator[None]:
    """Holds a lock among processes and threads. The system drops it with its holder, however that ends.

    Not the package filelock: it would be one more dependency; where a file system has no locks, its own kind stays
    behind a process that was killed; and it refuses links and, in some versions, empties the file, which may be the
    user's answers.

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
