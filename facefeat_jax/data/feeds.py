"""Feeds: from the index stream to batches of pixels and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from absl import flags

from facefeat_jax.data.examples import UNKNOWN, Examples
from facefeat_jax.data.images import BadImageError, DecodePolicy, decode_resized
from facefeat_jax.data.index_stream import IndexBatch, IndexStream


class Batch(NamedTuple):
    """What a step takes.

    Attributes:
      tasks: the heads whose losses are taken.
      images: `[batch, size, size, 3]`, uint8.
      labels: per task of `tasks` `[batch]`, int32; `UNKNOWN` for padding and where a picture has no label.
      mask: `[batch]`, bool, false for padding.
      indices: `[batch]`, int64, the pictures' numbers in `Examples`.
    """

    tasks: tuple[str, ...]
    images: np.ndarray
    labels: dict[str, np.ndarray]
    mask: np.ndarray
    indices: np.ndarray


def stream(
    batches: IndexStream | Sequence[IndexBatch],
    examples: Examples,
    *,
    image_size: int,
    decode: DecodePolicy,
    start: int = 0,
    threads: int = 4,
    prefetch: int = 8,
) -> Iterator[Batch]:
    """Decodes batches on the host, some ahead of their use, in the order of the index stream.

    Pillow releases the GIL while it decodes, so the work is spread over threads, a batch each.

    Args:
      batches: the steps' pictures, by step number.
      examples: where the pictures are read from.
      image_size: side of the pictures in the batch, in pixels.
      decode: how files become RGB.
      start: number of the first step wanted.
      threads: how many batches are decoded at a time.
      prefetch: how many batches are held ready.

    Raises:
      BadImageError: from the iterator, naming the picture that does not decode.
    """
    # grain reads absl flags, which are only parsed inside an absl app.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()

    def load(wanted: IndexBatch) -> Batch:
        images = np.empty((len(wanted.indices), image_size, image_size, 3), np.uint8)
        for position, index in enumerate(wanted.indices):
            if not wanted.mask[position]:
                images[position] = images[0]
                continue
            try:
                images[position] = decode_resized(examples.read(int(index)), image_size, decode)
            except BadImageError as error:
                raise BadImageError(f"{examples.name(int(index))}: {error}; prepare the data set again") from error
        labels = {
            task: np.where(wanted.mask, examples.labels[task][wanted.indices], UNKNOWN).astype(np.int32)
            for task in wanted.tasks
        }
        return Batch(wanted.tasks, images, labels, wanted.mask, wanted.indices)

    dataset = grain.MapDataset.source(batches)[start:].map(load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    return iter(dataset.to_iter_dataset(options))
