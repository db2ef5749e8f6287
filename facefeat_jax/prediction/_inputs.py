"""What `predict` is given: names of files, folders, patterns and addresses, and how their content is read."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO

from facefeat_jax.data._budget import FILES, MAX_FILE_BYTES
from facefeat_jax.data._decoder_limits import BadImageError
from facefeat_jax.data._reasons import is_named_as_picture
from facefeat_jax.data.trees import FolderTree
from facefeat_jax.prediction import _addresses as addresses
from facefeat_jax.prediction import _videos as videos
from facefeat_jax.prediction.answers import not_read
from facefeat_jax.system.files import read_regular
from facefeat_jax.system.text import count

Reader = Callable[[str], AbstractContextManager[bytes]]
"""Takes the name of a picture and gives its content, with its share of the memory for files."""


def expanded(words: Sequence[str], pattern: str | None = None, every: int = 1) -> tuple[list[str], list[str]]:
    """Returns the names of pictures that words of a command stand for, and lines about what is not among them.

    A folder stands for the pictures in it and in its folders, in the order of their names; `~` for the home folder; and
    a word with `*`, `?` or `[`, if there is no file of that name, for the files that match it (`**` for any folders).

    Args:
      words: files, folders, patterns or addresses.
      pattern: what names in a folder have to match; None takes those that end like pictures.
      every: every how many-th frame of a video is taken.

    What stands for nothing stays as it is, and is answered as a file that can't be read.

    Raises:
      UserError: a folder can't be read.
    """
    names: list[str] = []
    lines: list[str] = []
    for word in words:
        name = os.path.expanduser(word) if word.startswith("~") and not os.path.lexists(word) else word
        if addresses.is_address(name):
            names.append(name)
        elif os.path.isdir(name):
            found, about = _in_folder(name, pattern)
            names += found or [name]
            lines += about
        elif glob.has_magic(name) and not os.path.lexists(name):
            names += sorted(one for one in glob.glob(name, recursive=True) if not os.path.isdir(one)) or [name]
        else:
            names.append(name)
    return [one for name in names for one in _of_video(name, every, lines)], lines


def _of_video(name: str, every: int, lines: list[str]) -> list[str]:
    """Returns the names of a video's frames; that of any other file, and of a video that can't be read, as it is."""
    if not videos.is_video(name) or addresses.is_address(name) or not os.path.isfile(name):
        return [name]
    try:
        return videos.frames(name, every)
    except BadImageError as error:
        lines.append(f"{name}: {error}")
        return [name]


def _in_folder(folder: str, pattern: str | None) -> tuple[list[str], list[str]]:
    tree = FolderTree(Path(folder))
    files = tree.files()
    taken = [name for name in files if (PurePosixPath(name).match(pattern) if pattern else is_named_as_picture(name))]
    lines = [f"{os.path.join(folder, name)}: left out, {reason}" for name, reason in tree.skipped]
    if len(taken) < len(files):
        others = count(len(files) - len(taken), "other file")
        lines.append(f"{folder}: {count(len(taken), 'picture')}, {others}; --glob PATTERN chooses")
    return [os.path.join(folder, name) for name in taken], lines


def reader(*, allow_private: bool = False, again: int = 0) -> Reader:
    """Returns what reads files and addresses.

    Args:
      allow_private: whether addresses may lead to hosts that are not on the public internet.
      again: of how many addresses the content is kept in the folder of temporary files, to be read a second time.
    """

    films, pages = videos.Films(), _Pages(allow_private, again)

    def read(source: str) -> AbstractContextManager[bytes]:
        if addresses.is_address(source):
            return pages.read(source)
        if videos.frame_of(source) and not os.path.lexists(source):
            return nullcontext(films.read(source))
        return content_of(Path(source))

    return read


class _Pages:
    """What lies at addresses; the newest of them are kept. Safe to call from several threads."""

    def __init__(self, allow_private: bool, most: int):
        self._allow_private, self._most = allow_private, most
        self._kept: OrderedDict[str, IO[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._kept)

    @contextmanager
    def read(self, address: str) -> Iterator[bytes]:
        with FILES.holding(addresses.MAX_BYTES) as keep:
            content = self._again(address) or addresses.fetch(address, allow_private=self._allow_private)
            keep(len(content))
            if self._most:
                self._keep(address, content)
            yield content

    def _again(self, address: str) -> bytes:
        with self._lock:
            if (file := self._kept.get(address)) is None:
                return b""
            file.seek(0)
            return file.read()

    def _keep(self, address: str, content: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):  # no room: it is fetched again
            if address not in self._kept:
                file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is no longer among the newest
                file.write(content)
                file.flush()  # what there is no room for would fail when it is read
                self._kept[address] = file
            self._kept.move_to_end(address)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)[1].close()


def _close(kept: OrderedDict[str, IO[bytes]]) -> None:
    for file in kept.values():
        file.close()


@contextmanager
def content_of(path: str | Path) -> Iterator[bytes]:
    """Gives a file's bytes, with their share of the memory for files (`data._budget.FILES`).

    Raises:
      BadImageError: it can't be read.
    """
    with ExitStack() as held:
        try:
            content = read_regular(path, MAX_FILE_BYTES, before=lambda size: held.enter_context(FILES.holding(size)))
        except (OSError, ValueError) as error:
            raise BadImageError(not_read(error)) from error
        yield content
