"""The files of a downloaded data set, whether it lies there as a folder, as a zip, or as a folder of zips.

Nothing is ever extracted: pictures are read out of the archive, so an archive can't write anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from facefeat_jax.data._budget import MAX_FILE_BYTES
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import read_regular
from facefeat_jax.system.text import format_size

_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_MOST_LEVELS = 100  # of folders in folders; deeper ones are no data set, and would exhaust Python's stack
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of the others, Python can't bound what comes out
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

    def size(self, name: str) -> int:
        """Returns how many bytes `read` will return, at most; 0 where that is not known."""

    def read(self, name: str) -> bytes:
        """Returns a file's content; safe to call from several threads.

        Raises:
          UnreadableError: it can't be read.
        """


def digest_of(data: bytes) -> int:
    """Returns the first eight bytes of the SHA-256 of a file, as a number: files are the same where it is."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


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
            return _Union(folder, {name: ZipTree(path / name) for name in archives})
        return folder
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return ZipTree(path)


class FolderTree:
    """The regular files under a folder, links followed; see `Tree`.

    A link to a folder that was listed already is not followed: it would give the same pictures twice, and a few links
    to each other could make a listing without end.
    """

    def __init__(self, root: Path):
        self.skipped: list[tuple[str, str]] = []
        self._root = root
        self._files: dict[str, str] = {}
        self._listed: set[tuple[int, int]] = set()
        try:
            self._walk(os.fspath(root), "", ())
        except OSError as error:
            raise UserError(f"{error.filename or root}: {error.strerror or error}") from error

    def files(self) -> list[str]:
        return sorted(self._files)

    def size(self, name: str) -> int:
        try:
            return os.stat(self._files[name]).st_size
        except OSError:
            return 0  # nor can it be read

    def read(self, name: str) -> bytes:
        try:
            return read_regular(self._files[name], MAX_FILE_BYTES)
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error

    def _walk(self, folder: str, prefix: str, above: tuple[tuple[int, int], ...], *, linked: bool = False) -> None:
        here = os.stat(folder)
        identity = (here.st_dev, here.st_ino)
        reason = None
        if identity in above:
            reason = "a link to a folder above it"
        elif linked and identity in self._listed:
            reason = "a link to a folder that is listed already"
        elif len(above) == _MOST_LEVELS:
            reason = f"more than {_MOST_LEVELS} folders deep"
        if reason:
            self.skipped.append((prefix.rstrip("/"), reason))
            return
        self._listed.add(identity)
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
                        self._walk(entry.path, name + "/", (*above, identity), linked=entry.is_symlink())
                    except PermissionError:
                        self.skipped.append((name, "a folder that may not be read"))
                    except OSError as error:
                        self.skipped.append((name, f"a folder that can't be read: {error.strerror or error}"))
                elif not stat.S_ISREG(status.st_mode):
                    self.skipped.append((name, "not a regular file"))
                elif status.st_size > MAX_FILE_BYTES and not name.lower().endswith(".zip"):
                    self.skipped.append((name, f"larger than {format_size(MAX_FILE_BYTES)}"))
                else:
                    self._files[name] = entry.path


class ZipTree:
    """The files in a zip archive; see `Tree`.

    Raises:
      UserError: it can't be read as a zip.
    """

    def __init__(self, path: Path):
        self.skipped: list[tuple[str, str]] = []
        self._path = path
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: holds names that are not UTF-8; unpack it and pass the folder") from error
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
            raise UserError(f"{path}: not a zip archive, or cut short ({error}); download it again") from error
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from error
        overlapping = _overlapping(self._zip)
        for entry in self._zip.infolist():
            name = _decoded(entry)
            if entry.is_dir() or _is_system(*name.split("/")):
                continue
            reason = self._refusal(name, entry)
            if reason is None and entry in overlapping:
                reason = "shares its bytes with another entry"
            if reason:
                self.skipped.append((name, reason))
            else:
                self._entries[name] = entry

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_zip"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _zip=zipfile.ZipFile(state["_path"]))

    def _refusal(self, name: str, entry: zipfile.ZipInfo) -> str | None:
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or ":" in name.split("/")[0]:
            return "its name climbs out of the archive"
        if entry.flag_bits & 0x1:
            return "encrypted"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return "a link"
        if entry.compress_type not in _METHODS:
            return "packed by a method that is not read: unpack it and pass the folder"
        if entry.file_size > MAX_FILE_BYTES:
            return f"larger than {format_size(MAX_FILE_BYTES)}"
        if name in self._entries:
            return "named a second time in the archive"
        return None

    def files(self) -> list[str]:
        return sorted(self._entries)

    def size(self, name: str) -> int:
        return self._entries[name].file_size

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        try:
            with self._zip.open(entry) as file:
                # Told how much, zipfile unpacks no more; `ZipFile.read` goes on to 2 GiB, whatever the entry claims.
                content = file.read(entry.file_size)
            if len(content) < entry.file_size:
                raise EOFError
            return content
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UnreadableError("damaged in the archive") from error
        except (OSError, NotImplementedError, RuntimeError) as error:
            raise UnreadableError(str(error) or type(error).__name__) from error


class _Union:
    """A folder with archives in it, as if they were unpacked: side by side, or each into a folder of its name.

    The latter where the same name is in two of them, or in one and outside.
    """

    def __init__(self, folder: Tree, archives: dict[str, ZipTree]):
        self.skipped = [pair for tree in (folder, *archives.values()) for pair in tree.skipped]
        outside = [name for name in folder.files() if name not in archives]
        everything = outside + [name for archive in archives.values() for name in archive.files()]
        apart = len(set(everything)) < len(everything)
        self._owner: dict[str, tuple[Tree, str]] = {name: (folder, name) for name in outside}
        for place, archive in archives.items():
            prefix = place[: -len(".zip")] + "/" if apart else ""
            self._owner |= {prefix + name: (archive, name) for name in archive.files()}

    def files(self) -> list[str]:
        return sorted(self._owner)

    def size(self, name: str) -> int:
        tree, inside = self._owner[name]
        return tree.size(inside)

    def read(self, name: str) -> bytes:
        tree, inside = self._owner[name]
        return tree.read(inside)


def _overlapping(archive: zipfile.ZipFile) -> set[zipfile.ZipInfo]:
    """Returns the entries that reach into the next one: so that a few bytes may be unpacked a million times."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
    return {entry for entry, end in zip(entries, ends, strict=True) if entry.header_offset + entry.compress_size > end}


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
