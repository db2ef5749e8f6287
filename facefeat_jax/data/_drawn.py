"""Drawing whole data sets on all cores, and how many pictures the `avatars` data set has."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from facefeat_jax.data import _child
from facefeat_jax.data.selection import Row, SplitName

if TYPE_CHECKING:
    from facefeat_jax.avatars import Avatar

SEED = 0
TRAIN_SIZE = 7168
VAL_SIZE = 1024

_CHUNK = 32

_Draw = Callable[[int], "Avatar"]
_Drawn = list[tuple[Row, bytes]]


def sizes() -> dict[SplitName, int]:
    """Returns the number of pictures in each split of `avatars`."""
    return {"train": TRAIN_SIZE, "val": VAL_SIZE}


def draw_rows(
    draw: _Draw,
    sizes: Mapping[SplitName, int],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[dict[SplitName, list[Row]], dict[str, bytes]]:
    """Draws a whole data set.

    Args:
      draw: draws the picture of a number, from 0.
      sizes: the number of pictures in each split, in the order in which they are numbered.
      workers: number of processes; one per core if None. With 1, everything happens in this process.
      advance: called with the number of pictures drawn since the last call.

    Returns:
      Per split the rows, and by `source_file` the pictures, as PNG: the same pixels whatever the version of Pillow.
    """
    total = sum(sizes.values())
    # What a main program or a notebook defines is not to be found from another process.
    if draw.__module__ == "__main__":
        workers = 1
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    rows: list[Row] = []
    data: dict[str, bytes] = {}
    for drawn in _mapped(draw, chunks, min(workers or os.cpu_count() or 1, len(chunks))):
        for row, encoded in drawn:
            rows.append(row)
            data[row.source_file] = encoded
        advance(len(drawn))
    following = iter(rows)
    return {split: list(islice(following, size)) for split, size in sizes.items()}, data


def _mapped(draw: _Draw, chunks: list[range], workers: int) -> Iterator[_Drawn]:
    """Draws chunks in order, by processes that take turns, since drawing holds the GIL."""
    done = 0
    if workers > 1:
        children = [_child.start(__name__) for _ in range(workers)]
        try:
            for number, child in enumerate(children):
                assert child.stdin is not None
                with child.stdin:
                    pickle.dump((draw, chunks[number::workers]), child.stdin)
            for number in range(len(chunks)):
                stream = children[number % workers].stdout
                assert stream is not None
                drawn = pickle.load(stream)
                done += 1
                yield drawn
        except (EOFError, pickle.UnpicklingError, BrokenPipeError):
            pass  # a child died, of too little memory say: the rest is drawn here
        finally:
            for child in children:
                _child.end(child)
    for chunk in chunks[done:]:
        yield _drawn(draw, chunk)


def _serve() -> None:
    """Draws the chunks that standard input asks for; a child's main."""
    draw, chunks = pickle.load(sys.stdin.buffer)
    for chunk in chunks:
        pickle.dump(_drawn(draw, chunk), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _drawn(draw: _Draw, indices: range) -> _Drawn:
    drawn = []
    for index in indices:
        avatar = draw(index)
        file = io.BytesIO()
        avatar.image.save(file, "PNG")
        drawn.append((Row(f"{index:05}.png", index, avatar.labels, avatar.groups), file.getvalue()))
    return drawn
