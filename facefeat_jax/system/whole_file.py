"""Files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO


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
