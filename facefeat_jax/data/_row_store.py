"""Arrays on disk with a row for each picture: filled once, then mapped into memory.

A store is a folder `KEY` with `rows.bin` (the array, C order), `rows.crc` (a CRC-32 of each row) and `rows.json` (what
it is, with digests of itself and of the checksums). It is filled in `KEY.partial` and renamed when everything is on
disk, so one that is there is whole. Each row is compared with its checksum whenever it is read; what a disk or another
program has spoilt is made again. One process fills, the others wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import only_one, write_whole
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.runtime import cache_dir
from facefeat_jax.system.text import format_size

FORMAT = 2
ABOUT, BIN, SUMS = "rows.json", "rows.bin", "rows.crc"
_SPARE_BYTES = 16 * 2**20
_ELSEWHERE = "choose another folder with FACEFEAT_CACHE"

Produce = Callable[[list[range]], Iterable[tuple[range, np.ndarray]]]
"""From ranges of row numbers to the rows of each, in whatever order."""


class NoRoomError(UserError):
    """There is no room for the rows; the message says how much is needed."""


@dataclass(frozen=True)
class Rows:
    """What a store holds."""

    key: str  # hexadecimal; of everything that the rows depend on
    count: int  # number of rows
    shape: tuple[int, ...]  # shape of one row
    dtype: np.dtype  # dtype of its numbers
    what: str  # in words, for messages: "fairface train at 224 px"
    chunk: int  # how many rows are made at a time

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """Size of all rows."""
        return self.count * self.row_bytes

    def to_json(self) -> dict[str, object]:
        """Returns what `rows.json` holds."""
        return {
            "store": FORMAT,
            "key": self.key,
            "count": self.count,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "what": self.what,
        }


def store_folder() -> Path:
    """Returns the folder of the stores; all of it can be deleted when no run is under way."""
    return cache_dir() / "rows"


class Store:
    """The rows of a store; safe to read from several threads.

    Attributes:
      shape: shape of one row.
      dtype: dtype of its numbers.

    Args:
      folder: where it lies.
      rows: what it holds.
      produce: makes rows, for those that are spoilt.
    """

    def __init__(self, folder: Path, rows: Rows, produce: Produce):
        self.shape, self.dtype = rows.shape, rows.dtype
        self._folder, self._rows, self._produce = folder, rows, produce
        self._sums = np.frombuffer((folder / SUMS).read_bytes(), "<u4").astype(np.uint32)
        if rows.count:
            # A plain view: numpy's own class would be handed on by whatever reads it.
            self._values = np.asarray(np.memmap(folder / BIN, rows.dtype, "r", shape=(rows.count, *rows.shape)))
        else:
            self._values = np.zeros((0, *rows.shape), rows.dtype)
        self._reported = False
        self._mending = threading.Lock()

    def __len__(self) -> int:
        return self._rows.count

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns the rows of those numbers, `[len(indices), *shape]`, as they were when the store was filled.

        Raises:
          UserError: a spoilt row can't be made again.
        """
        values = self._values[indices]  # what is checked is the copy, not what the disk may give the next time
        for position in np.flatnonzero(checksums(values) != self._sums[indices]):
            values[position] = self._made_again(int(indices[position]))
        return values

    def _made_again(self, index: int) -> np.ndarray:
        start = index - index % self._rows.chunk
        chunk = range(start, min(start + self._rows.chunk, self._rows.count))
        with self._mending:
            there = self._values[index : index + 1].copy()
            if checksums(there)[0] == self._sums[index]:
                return there[0]  # by another thread
            if not self._reported:
                say(f"{self._folder} ({self._rows.what}) is damaged (row {index:,}): damaged rows are computed again")
                self._reported = True
            ((_, made),) = self._produce([chunk])
            made = np.asarray(made)
            self._sums[chunk.start : chunk.stop] = checksums(made)
            with contextlib.suppress(OSError):  # then it is made again the next time
                descriptor = os.open(self._folder / BIN, os.O_WRONLY)
                try:
                    write_at(descriptor, made, chunk.start * self._rows.row_bytes)
                finally:
                    os.close(descriptor)
            return made[index - start]


def open_all(wanted: Sequence[tuple[Rows, Produce]]) -> list[Store]:
    """Returns stores of the cache folder; those that are not there are filled, if there is room for all of them.

    Args:
      wanted: what each holds, and what makes its rows.

    Raises:
      NoRoomError: there is no room for them.
      UserError: the folder can't be written to.
    """
    root = store_folder()
    require_room(root, [rows for rows, _ in wanted])
    return [open_or_fill(root, rows, produce) for rows, produce in wanted]


def open_or_fill(root: Path, rows: Rows, produce: Produce) -> Store:
    """Returns the rows, mapped into memory; fills the store where they are not there or not whole.

    Args:
      root: folder of the stores.
      rows: what is wanted.
      produce: makes rows; called with all ranges of them, and later with one whose rows are found spoilt.

    Raises:
      NoRoomError: there is no room for them.
      UserError: the folder can't be written to.
    """
    folder = root / rows.key
    if _fault(folder, rows) is None:
        return Store(folder, rows, produce)
    try:
        root.mkdir(parents=True, exist_ok=True)
        wait = f"another process is filling {folder} ({rows.what}); waiting for it"
        with only_one(root / f"{rows.key}.lock", waiting=lambda waited: None if waited else say(wait)):
            # Whoever held the lock before may have filled it.
            if (fault := _fault(folder, rows)) is not None:
                if folder.exists():
                    say(f"{folder} ({rows.what}) {fault}: filling it again")
                    shutil.rmtree(folder)
                _fill(folder, rows, produce)
        return Store(folder, rows, produce)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(
                f"no room left in {root} for {rows.what} ({format_size(rows.num_bytes)} in all); make room and start "
                f"again, or {_ELSEWHERE}"
            ) from error
        raise UserError(f"{rows.what} can't be kept in {root} ({error.strerror or error}); {_ELSEWHERE}") from error


def missing_bytes(root: Path, rows: Rows) -> int:
    """Returns how much room a store still needs: nothing where it is whole."""
    if _fault(root / rows.key, rows) is None:
        return 0
    partial = _partial(root / rows.key) / BIN
    there = partial.stat().st_blocks * 512 if partial.exists() else 0
    return max(rows.num_bytes - there, 0)


def count_filled(root: Path, rows: Rows) -> int:
    """Returns how many rows a store has by now, that another process may be filling."""
    for folder, count in ((root / rows.key, rows.count), (_partial(root / rows.key), 0)):
        if folder.exists():
            with contextlib.suppress(FileNotFoundError):  # it was whole a moment ago
                return count or (folder / BIN).stat().st_size // max(rows.row_bytes, 1)
    return 0


def require_room(root: Path, stores: Iterable[Rows]) -> None:
    """Looks whether stores that are not filled yet have room.

    Raises:
      NoRoomError: they have not.
    """
    needed = sum(missing_bytes(root, rows) for rows in stores)
    if not needed:
        return
    present = next(parent for parent in (root, *root.absolute().parents) if parent.exists())
    free = shutil.disk_usage(present).free
    if free < needed + _SPARE_BYTES:
        raise NoRoomError(
            f"{root} needs {format_size(needed + _SPARE_BYTES)} for decoded pictures, {format_size(free)} are free; "
            f"make room, or {_ELSEWHERE}"
        )


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _fault(folder: Path, rows: Rows) -> str | None:
    """Returns what is wrong with a store, or None where it is as described."""
    try:
        found, is_checked = checked_json.read_checked(folder / ABOUT)
        size, sums = (folder / BIN).stat().st_size, (folder / SUMS).read_bytes()
    except FileNotFoundError:
        return "is not complete"
    except (OSError, ValueError) as error:
        return f"can't be read ({error})"
    if not is_checked or found.get("store") != FORMAT:
        return "was written by another version"
    if {**found, "what": rows.what} != {**rows.to_json(), "sums": zlib.crc32(sums)}:
        return "holds something else"
    if size != rows.num_bytes:
        return f"is cut short ({size:,} bytes of {rows.num_bytes:,})"
    return None


def _fill(folder: Path, rows: Rows, produce: Produce) -> None:
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        chunks = [range(start, min(start + rows.chunk, rows.count)) for start in range(0, rows.count, rows.chunk)]
        sums = np.zeros(rows.count, np.uint32)
        descriptor = os.open(partial / BIN, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            with Bar(rows.what, rows.count) as bar:
                for chunk, values in produce(chunks):
                    sums[chunk.start : chunk.stop] = checksums(values)
                    write_at(descriptor, values, chunk.start * rows.row_bytes)
                    bar.advance(len(chunk))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _complete(partial, folder, rows, sums)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _complete(partial: Path, folder: Path, rows: Rows, sums: np.ndarray) -> None:
    """Makes a store of a folder in which all rows are on disk."""
    written = sums.astype("<u4").tobytes()
    write_whole(partial / SUMS, written)
    about = checked_json.with_digest({**rows.to_json(), "sums": zlib.crc32(written)})
    write_whole(partial / ABOUT, (json.dumps(about, indent=2) + "\n").encode())
    partial.rename(folder)


def adopt(root: Path, rows: Rows, file: Path, sums: np.ndarray) -> None:
    """Makes a store of a file that holds the rows, and lies on the same disk; the file is moved.

    Args:
      root: folder of the stores.
      rows: what they are.
      file: all of them, in order.
      sums: CRC-32 of each, `[n]`, uint32.

    Raises:
      OSError: there is no room for what is written beside them.
    """
    folder = root / rows.key
    partial = _partial(folder)
    with only_one(root / f"{rows.key}.lock", waiting=lambda _: None):
        for old in (partial, folder):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir()
        try:
            file.rename(partial / BIN)
            with open(partial / BIN, "rb") as opened:
                os.fsync(opened.fileno())
            _complete(partial, folder, rows, sums)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def checksums(values: np.ndarray) -> np.ndarray:
    """Returns a CRC-32 of each row, `[n]`, uint32."""
    return np.array([zlib.crc32(row) for row in _as_bytes(values)], np.uint32)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Returns rows as bytes `[n, row bytes]`, without copying where they lie together."""
    flat = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
    return flat.view(np.uint8)


def write_at(descriptor: int, values: np.ndarray, offset: int) -> None:
    """Writes rows at a place of a file, in bytes from its beginning."""
    # Not through a map: there, a full disk kills the process.
    view = memoryview(_as_bytes(values).reshape(-1).data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
