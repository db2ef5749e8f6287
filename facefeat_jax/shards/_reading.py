"""What is in a shard: the pictures of a tar file, a Parquet table or a part of a folder, one after the other."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import IO, Any

from facefeat_jax.data._budget import FILES, MAX_FILE_BYTES
from facefeat_jax.data._decoder_limits import BadImageError
from facefeat_jax.prediction._inputs import content_of
from facefeat_jax.shards._listing import Shard, Taken
from facefeat_jax.shards._storage import Place, ShardError, at_hand, place, reached, read_whole
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import count, format_size

Content = Callable[[], AbstractContextManager[bytes]]
"""Gives a picture's bytes, with their share of the memory for files; raises BadImageError where it can't."""

_ROWS = 1  # of a table, at a time: each may be large
_BLOCK = 512  # of a tar file
# The file itself is at fault; whatever else fails is the way to it.
_LASTING = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EFBIG),
    *(errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
}


class Pictures:
    """The pictures of an open shard, by keys that no two of them share: names in a tar file may come twice.

    Args:
      entries: name and content of each, in order.
    """

    def __init__(self, entries: Iterator[tuple[str, Content]]):
        self._entries = entries
        self._held: dict[str, tuple[str, Content]] = {}

    def keys(self) -> Iterator[str]:
        """Yields a key for each picture, whose content can be read from then on: their numbers from 0."""
        for number, entry in enumerate(self._entries):
            self._held[str(number)] = entry
            yield str(number)

    def name(self, key: str) -> str:
        """Returns a picture's name in the shard."""
        return self._held[key][0]

    def read(self, key: str) -> AbstractContextManager[bytes]:
        """Gives a picture's content."""
        return self._held[key][1]()

    def forget(self, key: str) -> None:
        """Lets a picture go that has been answered."""
        del self._held[key]


@contextmanager
def open_shard(shard: Shard, taken: Taken, image_column: str | None) -> Iterator[Pictures]:
    """Opens a shard.

    Args:
      shard: which.
      taken: which names in a tar file are pictures.
      image_column: column of the pictures in a table; None finds it.

    Raises:
      ShardError: it can't be read; also later, where damage shows later.
    """
    where, what = place(shard.address), f"{shard.name} can't be read"
    with ExitStack() as held:
        if shard.kind == "folder":
            entries: Iterator[tuple[str, Content]] = ((name, _of_file(where / name, shard)) for name in shard.files)
        else:
            with reached(what, ShardError):
                file = held.enter_context(at_hand(where))
            entries = _in_tar(file, taken, shard) if shard.kind == "tar" else _in_table(file, image_column)
        yield Pictures(_guarded(entries, what))


def _guarded(entries: Iterator[tuple[str, Content]], what: str) -> Iterator[tuple[str, Content]]:
    while True:
        with reached(what, ShardError):
            entry = next(entries, None)
        if entry is None:
            return
        yield entry


def _of_file(file: Place, shard: Shard) -> Content:
    if file.is_local:
        return partial(_local, file.path, shard.name)
    return partial(_remote, file, shard.name)


@contextmanager
def _local(file: str, shard: str) -> Iterator[bytes]:
    with ExitStack() as held:
        try:
            content = held.enter_context(content_of(file))
        except BadImageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno not in _LASTING:
                raise ShardError(f"{shard} can't be read: {file} ({cause.strerror or cause})") from error
            raise
        yield content


@contextmanager
def _remote(file: Place, shard: str) -> Iterator[bytes]:
    # But for a file that has gone, what fails is the way to it: an answer must not depend on that, nor be kept.
    with reached(f"{shard} can't be read: {file.address}", ShardError):
        try:
            size = file.fs.size(file.path) or 0
        except FileNotFoundError as error:
            raise BadImageError("can't be read: No such file or directory") from error
    _require_small(size)
    with FILES.holding(size):
        with reached(f"{shard} can't be read: {file.address}", ShardError):
            content = read_whole(file)
        yield content


def _in_tar(file: IO[bytes], taken: Taken, shard: Shard) -> Iterator[tuple[str, Content]]:
    links = 0
    tar: Any
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            tar.members.clear()  # they would pile up
            if not taken(member.name):
                continue
            if member.isreg() and not member.issparse():
                yield member.name, partial(_part, file, member.offset_data, member.size, shard.name)
            links += member.islnk() or member.issparse()
        # tarfile takes a damaged header for the end, where an empty block has to stand.
        if os.pread(file.fileno(), _BLOCK, tar.offset) != bytes(_BLOCK):
            raise tarfile.ReadError("damaged or cut short")
    if links:
        say(f"facefeat: {shard.name}: {count(links, 'hard link or sparse file')} left out")


@contextmanager
def _part(file: IO[bytes], start: int, size: int, shard: str) -> Iterator[bytes]:
    _require_small(size)
    with FILES.holding(size):
        with reached(f"{shard} can't be read", ShardError):
            # From several threads, so without moving the file's own place.
            content = os.pread(file.fileno(), size, start)
            if len(content) < size:
                raise tarfile.ReadError("unexpected end of data")
        yield content


def _require_small(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise BadImageError(f"can't be read: larger than {format_size(MAX_FILE_BYTES)}")


def _in_table(file: IO[bytes], image_column: str | None) -> Iterator[tuple[str, Content]]:
    import pyarrow.parquet
    from pyarrow.types import is_large_string, is_string

    table = pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    column = column_of(table.schema_arrow, image_column)
    texts = {field.name for field in table.schema_arrow if is_string(field.type) or is_large_string(field.type)}
    names = next((name for name in ("file", "path", "name", "key") if name in texts), None)
    wanted = [column, *([names] if names else [])]
    number = 0
    for batch in table.iter_batches(_ROWS, columns=wanted):
        for row in batch.to_pylist():
            value = row[column]
            name = value.get("path") if isinstance(value, dict) else None
            content = value.get("bytes") if isinstance(value, dict) else value
            yield str(name or (names and row[names]) or number), partial(_given, content)
            number += 1


def check_column(shards: Iterable[Shard], given: str | None) -> None:
    """Looks for the column of pictures in the first table, before a model is loaded; one that can't be read is passed.

    Raises:
      UserError: it is not there.
    """
    first = next((shard for shard in shards if shard.kind == "parquet"), None)
    if first is None:
        return
    import pyarrow.parquet

    where = place(first.address)
    try:
        with where.fs.open(where.path, "rb") as file:
            schema = pyarrow.parquet.read_schema(file)
    except Exception:  # what its worker will report
        return
    try:
        column_of(schema, given)
    except ValueError as error:
        raise UserError(f"{first.name}: {error}") from None


@contextmanager
def _given(content: bytes | None) -> Iterator[bytes]:
    if content is None:
        raise BadImageError("no picture in this row")
    _require_small(len(content))
    with FILES.holding(len(content)):
        yield content


def column_of(schema: Any, given: str | None) -> str:
    """Returns the name of the column that holds encoded pictures: as bytes, or as a struct whose `bytes` they are.

    Raises:
      ValueError: there is no such column, or there are several.
    """
    from pyarrow import types

    def holds(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(part.name == "bytes" and holds(part.type) for part in kind)
        return types.is_binary(kind) or types.is_large_binary(kind)

    fits = [field.name for field in schema if holds(field.type)]
    if given is not None and given in fits:
        return given
    if given is not None:
        why = "holds no bytes" if given in schema.names else "is not there"
        raise ValueError(f"the column {given!r} {why}; columns with bytes: {', '.join(fits) or 'none'}")
    if len(fits) == 1 or "image" in fits:
        return "image" if "image" in fits else fits[0]
    raise ValueError(
        f"--image-column has to say which of {', '.join(fits)} holds the pictures"
        if fits
        else f"no column holds pictures as bytes; columns: {', '.join(schema.names)[:200]}"
    )
