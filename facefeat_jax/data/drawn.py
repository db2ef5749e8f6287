"""The pictures of the `avatars` source: how many are drawn, and drawing them on all cores."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from facefeat_jax.data.avatars import draw
from facefeat_jax.data.selection import Row, SplitName

SEED = 0
TRAIN_SIZE = 4096
VAL_SIZE = 1024

_CHUNK = 32


def sizes() -> dict[SplitName, int]:
    """Returns the number of pictures in each split; train comes first in the numbering of the drawing code."""
    return {"train": TRAIN_SIZE, "val": VAL_SIZE}


def draw_rows(
    *, workers: int | None = None, advance: Callable[[int], None] = lambda _: None
) -> tuple[dict[SplitName, list[Row]], dict[str, bytes]]:
    """Draws the whole data set.

    Args:
      workers: number of processes; one per core if None. With 1, everything happens in this process.
      advance: called with the number of pictures drawn since the last call.

    Returns:
      Per split the rows, and by `source_file` the pictures, as PNG: the same pixels whatever the version of Pillow.
    """
    total = sum(sizes().values())
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    workers = min(workers or os.cpu_count() or 1, len(chunks))
    rows: list[Row] = []
    data: dict[str, bytes] = {}
    for results in _mapped(chunks, workers):
        for row, encoded in results:
            rows.append(row)
            data[row.source_file] = encoded
        advance(len(results))
    return {"train": rows[:TRAIN_SIZE], "val": rows[TRAIN_SIZE:]}, data


def _mapped(chunks: Sequence[range], workers: int) -> Iterator[list[tuple[Row, bytes]]]:
    done = 0
    if workers > 1:
        # Processes, since drawing holds the GIL; started afresh, since a fork of a process with JAX's threads may hang.
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(workers, context) as pool:
                try:
                    for results in pool.map(_drawn, chunks):
                        done += 1
                        yield results
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        except BrokenProcessPool:
            pass  # a calling script that doesn't guard its main can't be run again in a child, for one
    for chunk in chunks[done:]:
        yield _drawn(chunk)


def _drawn(indices: range) -> list[tuple[Row, bytes]]:
    drawn = []
    for index in indices:
        avatar = draw(SEED, index)
        file = io.BytesIO()
        avatar.image.save(file, "PNG")
        drawn.append((Row(f"{index:05}.png", index, avatar.labels, avatar.groups), file.getvalue()))
    return drawn
