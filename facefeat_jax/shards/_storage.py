"""Files and folders on this machine, and through fsspec on whatever it reaches (`s3://`, `gs://`), by their address."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import opened, write_whole

# An object appears whole, when its upload is complete; elsewhere files are written beside their place and renamed.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "oss", "memory"})
_CHUNK = 1 << 23
_DEEPEST = 50  # folders in folders; a link to a folder above it has no end


class ShardError(Exception):
    """A shard can't be read; the message is one line that names it."""


@dataclass(frozen=True)
class Place:
    """A file or folder.

    Attributes:
      fs: the file system.
      path: where it is there, absolute.
    """

    fs: Any
    path: str

    def __truediv__(self, name: str) -> Place:
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}")

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine, or what is mounted there."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def address(self) -> str:
        """What `place` takes."""
        return self.path if self.is_local else self.fs.unstrip_protocol(self.path)

    def holds(self, other: Place) -> bool:
        """Returns whether another place is this one or lies below it."""
        same = self.fs == other.fs or (self.is_local and other.is_local)
        return same and f"{other.path.rstrip('/')}/".startswith(f"{self.path.rstrip('/')}/")


def place(address: str) -> Place:
    """Returns the place of an address: a path, or one such as `s3://bucket/folder`.

    Raises:
      UserError: nothing is installed that reaches it.
    """
    kind = address.partition("://")[0] if "://" in address else "file"
    if kind in ("http", "https"):
        raise UserError(f"{address}: shards are files or lie in object storage (s3://, gs://), not behind {kind}")
    if kind == "file" and "://" not in address:
        return Place(LocalFileSystem(), os.path.abspath(os.path.expanduser(address)))
    try:
        # A listing that is kept would hide what other workers write.
        options = {} if kind == "file" else {"use_listings_cache": False}
        fs, path = url_to_fs(address, **options)
    except ImportError as error:
        raise UserError(
            f"{address}: {' '.join(str(error).split())} (pip install s3fs for s3://, gcsfs for gs://)"
        ) from None
    except Exception as error:  # each file system has its own
        raise UserError(f"{address}: {_reason(error)}") from None
    return Place(fs, path)


@contextlib.contextmanager
def reached(what: str, kind: Callable[[str], Exception] = UserError, of: type[Exception] = Exception) -> Iterator[None]:
    """Whatever a file system raises becomes one error of one line, which begins with `what`; of its class, if given."""
    try:
        yield
    except (UserError, ShardError):
        raise
    except of as error:  # botocore's, gcsfs's and aiohttp's errors have no common base
        raise kind(f"{what} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def exists(file: Place) -> bool:
    """Returns whether there is a file or folder."""
    with reached(f"can't look for {file.address}"):
        return file.fs.exists(file.path)


def is_folder(file: Place) -> bool:
    """Returns whether it is a folder."""
    with reached(f"can't look for {file.address}"):
        return file.fs.isdir(file.path)


def matches(pattern: Place) -> list[Place]:
    """Returns what fits a pattern with `*`, `?` or `[`, in the order of the names."""
    with reached(f"can't list {pattern.address}"):
        return [Place(pattern.fs, path) for path in sorted(pattern.fs.glob(pattern.path))]


def files_below(folder: Place) -> list[str]:
    """Returns the names of all files in a folder and its folders, in order; hidden ones, of systems and ours, not."""
    with reached(f"can't list {folder.address}"):
        start = f"{folder.path.rstrip('/')}/"
        names = (path.removeprefix(start) for path in folder.fs.find(folder.path, maxdepth=_DEEPEST))
        return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def read_whole(file: Place) -> bytes:
    """Returns a file's content.

    Raises:
      FileNotFoundError: there is none.
      Exception: it can't be read; which, its file system says.
    """
    return file.fs.cat_file(file.path)


@contextlib.contextmanager
def at_hand(file: Place) -> Iterator[IO[bytes]]:
    """Opens a file for reading at any offset; one from elsewhere is copied first, into a file without a name."""
    if file.is_local:
        with opened(file.path) as local:
            yield local
        return
    with tempfile.TemporaryFile() as copy, file.fs.open(file.path, "rb") as remote:
        shutil.copyfileobj(remote, copy, _CHUNK)
        copy.seek(0)
        yield copy


def write(file: Place, content: Callable[[IO[bytes]], object]) -> None:
    """Writes a file that appears under its name when it is whole, in place of an earlier one.

    What killed processes left of the same file is removed then. Where another process has written it meanwhile, that
    one's stays: both hold the same.

    Args:
      file: where.
      content: writes it into an open file.

    Raises:
      UserError: it can't be written.
      Exception: what `content` raises, but for errors of the system, which are taken for those of writing.
    """
    what = f"{file.address} can't be written"
    with reached(what, of=OSError):
        if not file.is_local:
            with tempfile.TemporaryDirectory() as folder:
                whole = write_whole(Path(folder) / "whole", content)
                with reached(what):
                    _put(file, whole)
            return
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(path, content)
        except FileNotFoundError:  # whoever wrote the same removed ours
            if not path.exists():
                raise
        for left in path.parent.glob(f".{_escaped(path.name[:200])}.????????.tmp"):
            left.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _put(file: Place, whole: Path) -> None:
    protocols = {file.fs.protocol} if isinstance(file.fs.protocol, str) else {*file.fs.protocol}
    if protocols & _OBJECT_STORES:
        file.fs.put_file(str(whole), file.path)
        return
    folder, _, name = file.path.rpartition("/")
    file.fs.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/.{name}.{os.urandom(4).hex()}.tmp"
    file.fs.put_file(str(whole), temporary)
    file.fs.mv(temporary, file.path)


def create(file: Place, content: bytes) -> None:
    """Writes a small file where there is none; of several that try, one does, and the others change nothing.

    (Of object stores only some can tell; on the others the last one's stays.)

    Raises:
      UserError: it can't be written.
    """
    with reached(f"{file.address} can't be written"), contextlib.suppress(FileExistsError):
        if not file.is_local:
            if not file.fs.exists(file.path):
                file.fs.pipe_file(file.path, content, mode="create")
            return
        path = Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_whole(path.with_name(f".{path.name}.{os.urandom(4).hex()}"), content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without such links
            with path.open("xb") as small:
                small.write(content)
        finally:
            temporary.unlink()
