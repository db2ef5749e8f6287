"""What makes two picture files the same: a digest of their bytes, whatever they are called and wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data.trees import digest_of
from facefeat_jax.system.errors import UserError

if TYPE_CHECKING:
    from facefeat_jax.data.dataset import Split

_CHUNK = 256


def digests_of(split: Split) -> np.ndarray:
    """Returns the digest of each record's file, `[n]`, uint64.

    Data sets that were prepared by an earlier version have none: their pictures are read, once, and the digests kept
    in the cache.

    Raises:
      UserError: the records can't be read.
    """
    if split.digests is not None:
        return split.digests
    rows = row_store.Rows(
        key=hashlib.sha256(f"digests {split.fingerprint}\n".encode()).hexdigest()[:32],
        count=len(split),
        shape=(),
        dtype=np.dtype(np.uint64),
        what=f"digests of {split.source} {split.split}",
        chunk=_CHUNK,
    )

    def read(ranges: list[range]) -> Iterator[tuple[range, np.ndarray]]:
        for part in ranges:
            yield part, np.array([digest_of(split.read(index)) for index in part], np.uint64)

    try:
        (store,) = row_store.open_all([(rows, read)])
        return store.take(np.arange(len(split)))
    except UserError:  # a cache that is full or closed; or records that can't be read, which this raises again
        return np.array([digest_of(split.read(index)) for index in range(len(split))], np.uint64)
