"""The files of a downloaded data set, whether it lies there as a folder, as a zip, or as a folder of zips.

Nothing is ever extracted: pictures are read out of the archive, so an archive can't write anywhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from facefeat_jax.errors import UserError

MAX_FILE_BYTES = 256 * 2**20
"""Larger files are no pictures of these data sets; an archive may claim any size."""

_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_SYSTEM_NAMES = ("Thumbs.db", "desktop.ini", "__MACOSX")


class UnreadableError(Exception):
    """A file of a tree can't be read; the message is the short reason."""


class Tree(Protocol):
    """Files under one root.

    Attributes:
      skipped: `(name, reason)` of what was found but is not offered, such as links in an archive.
    """

    skipped: list[tuple[str, str]]

    def files(self) -> list[str]:
        """Returns the names relative to the root, with `/`, sorted."""

    def read(self, name: str) -> bytes:
        """Returns a file's content; safe to call from several threads.

        Raises:
          UnreadableError: it can't be read.
        """


def open_tree(path: Path) -> Tree:
    """Opens a folder, a zip, or a folder that holds the zips (beside label files, say) as they were downloaded.

    Zips in a folder count only where the folder has no pictures outside them: a set that was unpacked beside its
    archive is one set.

    Raises:
      UserError: there is nothing at `path`, or it is neither a folder nor a zip that can be read.
    """
    if path.is_dir():
        folder = FolderTree(path)
        names = folder.files()
        archives = [name for name in names if name.lower().endswith(".zip")]
        if archives and not any(name.lower().endswith(_PICTURE_SUFFIXES) for name in names):
            return _Union([folder, *(ZipTree(path / name) for name in archives)], hidden=set(archives))
        return folder
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return ZipTree(path)


class FolderTree:
    """The regular files under a folder, links followed; see `Tree`."""

    def __init__(self, root: Path):
        self.skipped: list[tuple[str, str]] = []
        self._root = root
        self._files: dict[str, str] = {}
        try:
            self._walk(os.fspath(root), "", frozenset())
        except OSError as error:
            raise UserError(f"{error.filename or root}: {error.strerror or error}") from error

    def files(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        try:
            with open(self._files[name], "rb") as file:
                return file.read()
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error

    def _walk(self, folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        here = os.stat(folder)
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            self.skipped.append((prefix.rstrip("/"), "a link to a folder above it"))
            return
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = prefix + entry.name
                try:
                    name.encode("utf-8")
                except UnicodeEncodeError:
                    self.skipped.append((ascii(name)[1:-1], "its name is not UTF-8"))
                    continue
                if _is_system(entry.name):
                    continue
                try:
                    status = entry.stat()
                except OSError as error:
                    self.skipped.append((name, "a dangling link" if entry.is_symlink() else str(error.strerror)))
                    continue
                if stat.S_ISDIR(status.st_mode):
                    try:
                        self._walk(entry.path, name + "/", above | {identity})
                    except PermissionError:
                        self.skipped.append((name, "a folder that may not be read"))
                elif not stat.S_ISREG(status.st_mode):
                    self.skipped.append((name, "not a regular file"))
                elif status.st_size > MAX_FILE_BYTES and not name.lower().endswith(".zip"):
                    self.skipped.append((name, f"larger than {MAX_FILE_BYTES >> 20} MiB"))
                else:
                    self._files[name] = entry.path


class ZipTree:
    """The files in a zip archive; see `Tree`.

    Raises:
      UserError: it can't be read as a zip.
    """

    def __init__(self, path: Path):
        self.skipped: list[tuple[str, str]] = []
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: holds names that are not UTF-8; unpack it and pass the folder") from error
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
            raise UserError(f"{path}: not a zip archive, or cut short ({error}); download it again") from error
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from error
        for entry in self._zip.infolist():
            name = _decoded(entry)
            if entry.is_dir() or _is_system(*name.split("/")):
                continue
            if reason := self._refusal(name, entry):
                self.skipped.append((name, reason))
            else:
                self._entries[name] = entry

    def _refusal(self, name: str, entry: zipfile.ZipInfo) -> str | None:
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or ":" in name.split("/")[0]:
            return "its name climbs out of the archive"
        if entry.flag_bits & 0x1:
            return "encrypted"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return "a link"
        if entry.file_size > MAX_FILE_BYTES:
            return f"larger than {MAX_FILE_BYTES >> 20} MiB"
        if name in self._entries:
            return "named a second time in the archive"
        return None

    def files(self) -> list[str]:
        return sorted(self._entries)

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._entries[name])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UnreadableError("damaged in the archive") from error
        except (OSError, NotImplementedError, RuntimeError) as error:
            raise UnreadableError(str(error) or type(error).__name__) from error


class _Union:
    """Several trees over one root; the first that has a name wins."""

    def __init__(self, trees: list[Tree], hidden: set[str]):
        self.skipped = [pair for tree in trees for pair in tree.skipped]
        self._owner: dict[str, Tree] = {}
        for tree in trees:
            for name in tree.files():
                if name not in hidden:
                    self._owner.setdefault(name, tree)

    def files(self) -> list[str]:
        return sorted(self._owner)

    def read(self, name: str) -> bytes:
        return self._owner[name].read(name)


def _is_system(*parts: str) -> bool:
    """Whether a file or folder is what operating systems leave behind."""
    return any((part.strip(".") and part.startswith(".")) or part in _SYSTEM_NAMES for part in parts)


def _decoded(entry: zipfile.ZipInfo) -> str:
    """Returns an entry's name; archivers that write UTF-8 without saying so are read right."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")
