"""Rows of pixels written while a data set is prepared, from the pictures that are decoded to check them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data._parts import Part, Written
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.pixels import PixelFormat, stores
from facefeat_jax.data.selection import Row, SplitName

_CHUNK = 64  # rows moved at a time


class PreparedRows:
    """The rows of a data set's splits, on their way into the cache; see `written`.

    Attributes:
      pixels: how pictures become rows.
      files: by split, the file that its rows are written into.
    """

    def __init__(self, pixels: PixelFormat, files: Mapping[SplitName, Path]):
        self.pixels, self.files = pixels, files
        self._sums: dict[SplitName, np.ndarray] = {}

    def join(self, parts: Sequence[Part], written: Sequence[Written]) -> None:
        """Moves rows to where they belong: up, past the places of pictures that don't decode."""
        row_bytes = 3 * self.pixels.image_size**2
        for split, file in self.files.items():
            of_split = [(part, done.sums) for part, done in zip(parts, written, strict=True) if part.split == split]
            end = 0
            with open(file, "r+b", buffering=0) as opened:
                for part, sums in of_split:
                    for start in range(0, len(sums) if part.first != end else 0, _CHUNK):
                        count = min(_CHUNK, len(sums) - start)
                        rows = os.pread(opened.fileno(), count * row_bytes, (part.first + start) * row_bytes)
                        values = np.frombuffer(rows, np.uint8).reshape(count, row_bytes)
                        row_store.write_at(opened.fileno(), values, (end + start) * row_bytes)
                    end += len(sums)
                opened.truncate(end * row_bytes)
            self._sums[split] = np.array([one for _, sums in of_split for one in sums], np.uint32)

    def keep(self, splits: Mapping[SplitName, Examples]) -> None:
        """Puts the rows into the cache, as those of these pictures.

        Raises:
          OSError: there is no room for them.
        """
        for split, examples in splits.items():
            (rows,) = stores(examples, self.pixels)
            row_store.adopt(self.files[split].parent, rows, self.files[split], self._sums[split])


@contextmanager
def written(folder: Path, rows: Mapping[SplitName, Sequence[Row]], pixels: PixelFormat) -> Iterator[PreparedRows]:
    """Gives files for the rows of a data set that is prepared in `folder`; what was not kept of them is removed.

    Raises:
      NoRoomError: there is no room for them.
    """
    root, name = row_store.store_folder(), hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    wanted = {
        split: row_store.Rows(
            key=f"prepare-{name}-{split}",
            count=len(of_split),
            shape=pixels.shape,
            dtype=np.dtype(np.uint8),
            what=f"{split} at {pixels.image_size} px",
            chunk=1,
        )
        for split, of_split in rows.items()
    }
    row_store.require_room(root, wanted.values())
    root.mkdir(parents=True, exist_ok=True)
    files = {split: root / f"{of.key}.partial" for split, of in wanted.items()}
    try:
        for file in files.values():
            file.write_bytes(b"")
        yield PreparedRows(pixels, files)
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
