"""Arrays on disk with a row for each picture: filled once, then mapped into memory.

A store is a folder `KEY` with `rows.bin` (the array, C order) and `rows.json` (what it is). It is filled in
`KEY.partial` and renamed when everything is on disk, so one that is there is whole. `done` in the partial folder marks
the chunks that are on disk: whoever comes after an interruption goes on from there. One process fills, the others wait
for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facefeat_jax.errors import UserError
from facefeat_jax.locks import only_one
from facefeat_jax.progress import Bar, say
from facefeat_jax.runtime import cache_dir
from facefeat_jax.whole_file import write_whole

FORMAT = 1
_SYNC_BYTES, _SYNC_S = 256 * 2**20, 2.0  # how much is written, or how long, until it is forced to disk and marked
_SPARE_BYTES = 16 * 2**20

Produce = Callable[[list[range]], Iterable[tuple[range, np.ndarray]]]
"""From ranges of row numbers to the rows of each, in whatever order."""


class NoRoomError(UserError):
    """There is no room for the rows; the message says how much is needed."""


@dataclass(frozen=True)
class Rows:
    """What a store holds.

    Attributes:
      key: hexadecimal; of everything that the rows depend on.
      count: number of rows.
      shape: of one row.
      dtype: of its numbers.
      what: in words, for messages: "fairface train at 224 px".
      chunk: how many rows are made and marked at a time.
    """

    key: str
    count: int
    shape: tuple[int, ...]
    dtype: np.dtype
    what: str
    chunk: int

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
            "format": FORMAT,
            "key": self.key,
            "count": self.count,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "what": self.what,
        }


def store_folder() -> Path:
    """Returns the folder of the stores; all of it can be deleted when no run is under way."""
    return cache_dir() / "rows"


def open_or_fill(root: Path, rows: Rows, produce: Produce) -> np.ndarray:
    """Returns the rows, mapped into memory; fills the store where they are not there or not whole.

    Args:
      root: folder of the stores.
      rows: what is wanted.
      produce: makes rows; called with the ranges that are missing.

    Returns:
      `[count, *shape]`, read-only.

    Raises:
      NoRoomError: there is no room for them. What was written stays, and is gone on with the next time.
      UserError: the folder can't be written to.
    """
    folder = root / rows.key
    if _fault(folder, rows) is None:
        return _mapped(folder, rows)
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
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(
                f"no room left in {root} for {rows.what} ({_size(rows.num_bytes)} in all); what was written is kept: "
                "make room and start again, or choose another folder with FACEFEAT_CACHE"
            ) from error
        raise UserError(
            f"{rows.what} can't be kept in {root} ({error.strerror or error}); "
            "choose another folder with FACEFEAT_CACHE"
        ) from error
    return _mapped(folder, rows)


def missing_bytes(root: Path, rows: Rows) -> int:
    """Returns how much room a store still needs: nothing where it is whole."""
    if _fault(root / rows.key, rows) is None:
        return 0
    partial = _partial(root / rows.key) / "rows.bin"
    there = partial.stat().st_blocks * 512 if partial.exists() else 0
    return max(rows.num_bytes - there, 0)


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
            f"{root} needs {_size(needed + _SPARE_BYTES)} for decoded pictures, {_size(free)} are free; make room, or "
            "choose another folder with FACEFEAT_CACHE"
        )


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _fault(folder: Path, rows: Rows) -> str | None:
    """Returns what is wrong with a store, or None where it is as described."""
    try:
        found = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        size = (folder / "rows.bin").stat().st_size
    except FileNotFoundError:
        return "is not complete"
    except (OSError, ValueError) as error:
        return f"can't be read ({error})"
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return "was written by another version"
    if {**found, "what": rows.what} != rows.to_json():
        return "holds something else"
    if size != rows.num_bytes:
        return f"is cut short ({size:,} bytes of {rows.num_bytes:,})"
    return None


def _mapped(folder: Path, rows: Rows) -> np.ndarray:
    if not rows.count:
        return np.zeros((0, *rows.shape), rows.dtype)
    return np.memmap(folder / "rows.bin", rows.dtype, "r", shape=(rows.count, *rows.shape))


def _fill(folder: Path, rows: Rows, produce: Produce) -> None:
    partial = _partial(folder)
    described = json.dumps({**rows.to_json(), "chunk": rows.chunk}, indent=2) + "\n"
    with contextlib.suppress(OSError):
        if (partial / "rows.json").read_text(encoding="utf-8") != described:
            shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    write_whole(partial / "rows.json", described.encode())
    chunks = [range(start, min(start + rows.chunk, rows.count)) for start in range(0, rows.count, rows.chunk)]
    with _Partial(partial, len(chunks)) as store:
        missing = [chunk for number, chunk in enumerate(chunks) if not store.is_done(number)]
        before = rows.count - sum(map(len, missing))
        with Bar(rows.what, rows.count, completed=before) as bar:
            for chunk, values in produce(missing):
                store.write(chunk.start // rows.chunk, chunk.start * rows.row_bytes, values)
                bar.advance(len(chunk))
        store.sync()
        os.truncate(partial / "rows.bin", rows.num_bytes)
    write_whole(partial / "rows.json", (json.dumps(rows.to_json(), indent=2) + "\n").encode())
    (partial / "done").unlink()
    partial.rename(folder)


class _Partial:
    """The files of a store that is being filled."""

    def __init__(self, folder: Path, num_chunks: int):
        flags = os.O_RDWR | os.O_CREAT
        self._rows = os.open(folder / "rows.bin", flags, 0o666)
        self._done = os.open(folder / "done", flags, 0o666)
        marks = os.pread(self._done, num_chunks, 0)
        self._marks = bytearray(marks.ljust(num_chunks, b"\0"))
        self._pending: list[int] = []
        self._pending_bytes = 0
        self._synced = time.monotonic()

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be forced to disk is not marked
            self.sync()
        os.close(self._rows)
        os.close(self._done)

    def is_done(self, chunk: int) -> bool:
        return self._marks[chunk] == 1

    def write(self, chunk: int, offset: int, values: np.ndarray) -> None:
        # Not through a map: there, a full disk kills the process.
        view = memoryview(np.ascontiguousarray(values).view(np.uint8).reshape(-1).data)
        while view:
            written = os.pwrite(self._rows, view, offset)
            view, offset = view[written:], offset + written
        self._pending.append(chunk)
        self._pending_bytes += values.nbytes
        if self._pending_bytes >= _SYNC_BYTES or time.monotonic() - self._synced > _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Forces rows to disk, then marks them: a mark never stands for rows that a power cut has taken."""
        os.fsync(self._rows)
        for chunk in self._pending:
            self._marks[chunk] = 1
        os.pwrite(self._done, bytes(self._marks), 0)
        os.fsync(self._done)
        self._pending, self._pending_bytes, self._synced = [], 0, time.monotonic()


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"
