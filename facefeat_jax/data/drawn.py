"""The pictures of the `avatars` source: how many are drawn, and drawing them on all cores."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import facefeat_jax
from facefeat_jax.data.avatars import draw
from facefeat_jax.data.selection import Row, SplitName

SEED = 0
TRAIN_SIZE = 7168
VAL_SIZE = 1024

_CHUNK = 32

_Drawn = list[tuple[Row, bytes]]


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
    total = TRAIN_SIZE + VAL_SIZE
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    rows: list[Row] = []
    data: dict[str, bytes] = {}
    for drawn in _mapped(chunks, min(workers or os.cpu_count() or 1, len(chunks))):
        for row, encoded in drawn:
            rows.append(row)
            data[row.source_file] = encoded
        advance(len(drawn))
    return {"train": rows[:TRAIN_SIZE], "val": rows[TRAIN_SIZE:]}, data


def _mapped(chunks: list[range], workers: int) -> Iterator[_Drawn]:
    """Draws chunks in order, by processes that take turns.

    Processes, since drawing holds the GIL. Not multiprocessing's: forking is not safe beside JAX's threads, and
    spawning runs the calling script again where that doesn't guard its main.
    """
    done = 0
    if workers > 1:
        package_root = str(Path(facefeat_jax.__file__).parents[1])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-c", f"from {__name__} import _serve; _serve()"]
        children = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
            )
            for _ in range(workers)
        ]
        try:
            for number, child in enumerate(children):
                assert child.stdin is not None
                with child.stdin:
                    pickle.dump(chunks[number::workers], child.stdin)
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
                child.kill()
                assert child.stdout is not None
                child.stdout.close()
                child.wait()
    for chunk in chunks[done:]:
        yield _drawn(chunk)


def _serve() -> None:
    """Draws the chunks that standard input asks for; a child's main."""
    # Ctrl-C reaches the children too; the parent ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for chunk in pickle.load(sys.stdin.buffer):
        pickle.dump(_drawn(chunk), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _drawn(indices: range) -> _Drawn:
    drawn = []
    for index in indices:
        avatar = draw(SEED, index)
        file = io.BytesIO()
        avatar.image.save(file, "PNG")
        drawn.append((Row(f"{index:05}.png", index, avatar.labels, avatar.groups), file.getvalue()))
    return drawn
