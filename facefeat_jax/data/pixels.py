"""The pictures of `Examples` as rows of pixels: decoded when asked for, or once and for all into the cache."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, Protocol

import numpy as np
import PIL

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data._worker_threads import worker_threads
from facefeat_jax.data.dataset import Split
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.images import DECODING, BadImageError, decode_resized
from facefeat_jax.system.kinds import DecodePolicy, Interpolation
from facefeat_jax.system.progress import say

_CHUNK_BYTES = 4 * 2**20  # decoded by a thread at a time


@dataclass(frozen=True)
class PixelFormat:
    """How a picture file becomes a row.

    Attributes:
      image_size: side in pixels.
      decode: how files become RGB.
      interpolation: how they are resized.
    """

    image_size: int
    decode: DecodePolicy
    interpolation: Interpolation = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a row, which is uint8."""
        return (self.image_size, self.image_size, 3)

    def read(self, examples: Examples, index: int) -> np.ndarray:
        """Returns the picture of that number.

        Raises:
          BadImageError: it does not decode; the message names it.
        """
        try:
            with examples.opened(index) as data:
                return decode_resized(data, self.image_size, self.decode, interpolation=self.interpolation)
        except BadImageError as error:
            raise BadImageError(f"{examples.name(index)}: {error}; prepare the data set again") from error


class ExampleRows(Protocol):
    """A row for each example, by its number in `Examples`; safe to read from several threads.

    Attributes:
      shape: shape of one row.
      dtype: dtype of its numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns the rows of those numbers, `[len(indices), *shape]`."""


class DecodedRows:
    """Pictures decoded anew whenever they are asked for; see `ExampleRows`."""

    def __init__(self, examples: Examples, pixels: PixelFormat):
        self.shape: tuple[int, ...] = pixels.shape
        self.dtype = np.dtype(np.uint8)
        self._examples = examples
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._examples)

    def take(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *self.shape), np.uint8)
        for position, index in enumerate(indices):
            images[position] = self._pixels.read(self._examples, int(index))
        return images


class StoredRows:
    """Rows that lie in stores, one after the other; see `ExampleRows`."""

    def __init__(self, parts: Sequence[row_store.Store]):
        self.shape: tuple[int, ...] = parts[0].shape
        self.dtype = parts[0].dtype
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, indices: np.ndarray) -> np.ndarray:
        part_of = np.searchsorted(self._ends, indices, side="right")
        rows = np.empty((len(indices), *self.shape), self.dtype)
        for number in np.unique(part_of):
            chosen = part_of == number
            first = self._ends[number] - len(self._parts[number])
            rows[chosen] = self._parts[number].take(indices[chosen] - first)
        return rows


def stores(examples: Examples, pixels: PixelFormat) -> list[row_store.Rows]:
    """Returns what the cache holds for examples: a store for each split, shared by all runs that take the same rows."""
    return [
        row_store.Rows(
            key=_key(split, rows, pixels),
            count=len(rows),
            shape=pixels.shape,
            dtype=np.dtype(np.uint8),
            what=f"{split.source} {split.split} at {pixels.image_size} px",
            chunk=max(1, _CHUNK_BYTES // (3 * pixels.image_size**2)),
        )
        for split, rows in zip(examples.splits, examples.rows, strict=True)
    ]


def are_packed(examples: Examples, pixels: PixelFormat) -> bool:
    """Returns whether the cache holds all of the pictures."""
    return not any(row_store.missing_bytes(row_store.store_folder(), rows) for rows in stores(examples, pixels))


def open_rows(
    examples: Examples, pixels: PixelFormat, packed: Literal["auto", "on", "off"], *, threads: int | None = None
) -> ExampleRows:
    """Returns the pictures: from the cache with `on`, decoded anew whenever they are asked for with `off`.

    With `auto`, from the cache if there is room for them; otherwise a line is printed, and they are decoded again.
    Those that the cache does not hold are decoded into it first.

    Args:
      examples: the pictures.
      pixels: how they are decoded.
      packed: see above.
      threads: how many pictures are decoded into the cache at a time; one per core if None. Pillow releases the GIL.

    Returns:
      uint8 rows `[image_size, image_size, 3]`.

    Raises:
      row_store.NoRoomError: the cache has no room for them, with `on`.
      BadImageError: one does not decode; the message names it.
      UserError: the cache can't be written to.
    """
    if packed != "off":
        try:
            parts = [DecodedRows(part, pixels) for part in examples.by_split()]
            produce = [partial(read_ahead, part, threads=threads) for part in parts]
            return StoredRows(row_store.open_all(list(zip(stores(examples, pixels), produce, strict=True))))
        except row_store.NoRoomError as error:
            if packed == "on":
                raise
            say(f"pictures are decoded again in every epoch: {error}")
    return DecodedRows(examples, pixels)


def examples_key(examples: Examples, pixels: PixelFormat) -> str:
    """Returns a text that changes with any of the pictures, their order, or how they are decoded."""
    return " ".join(rows.key for rows in stores(examples, pixels))


def _key(split: Split, rows: np.ndarray, pixels: PixelFormat) -> str:
    # Another Pillow may bring another libjpeg, whose pixels may differ in the last bit.
    about = f"pixels {DECODING} {split.fingerprint} {pixels} pillow {PIL.__version__}\n"
    return hashlib.sha256(about.encode() + np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest()[:32]


def read_ahead(
    rows: ExampleRows, ranges: Iterable[range], *, threads: int | None = None
) -> Iterator[tuple[range, np.ndarray]]:
    """Yields ranges of examples with their rows, in order, some read ahead by threads.

    Args:
      rows: where they are read from.
      ranges: which ones.
      threads: how many ranges are read at a time; one per core if None.
    """

    def take(span: range) -> np.ndarray:
        return rows.take(np.arange(span.start, span.stop))

    workers = threads or os.cpu_count() or 1
    with worker_threads(workers) as pool:
        waiting = iter(ranges)
        running: deque[tuple[range, Future[np.ndarray]]] = deque(
            (span, pool.submit(take, span)) for span in islice(waiting, workers + 2)
        )
        while running:
            one, future = running.popleft()
            values = future.result()
            running.extend((following, pool.submit(take, following)) for following in islice(waiting, 1))
            yield one, values
