"""A process that decodes pictures into the cache while this one imports, traces and compiles.

In threads of this process that would be slow, and make the rest slow: tracing a training step holds the GIL for
seconds. All that the process does is to fill the stores that `pixels.open_rows` opens. Where it fails or is ended,
whoever opens them fills them, and says what is wrong. It imports no JAX.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from facefeat_jax.data import _child
from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data.examples import Examples, open_halves
from facefeat_jax.data.pixels import PixelFormat, open_rows, stores
from facefeat_jax.system.progress import Bar

_NICE = 5  # of 19, the lowest priority: what is compiled meanwhile is waited for as well
_POLL_S = 0.1
_END_S = 2.0  # for removing what is not complete; a decoder can't be stopped


class DecodingProcess:
    """Fills the stores of a run's pictures in the background; a context, which ends it.

    Args:
      sources: as in `open_halves`; so are the others, but for `pixels`.
      data_dir: see there.
      limit: see there.
      disjoint: see there.
      pixels: how pictures are decoded.
    """

    def __init__(
        self,
        sources: Sequence[str],
        data_dir: Path,
        pixels: PixelFormat,
        *,
        limit: int | None = None,
        disjoint: Sequence[str] = (),
    ):
        self._child = _child.start(__name__)
        assert self._child.stdin
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((sources, data_dir, limit, disjoint, pixels), self._child.stdin)
            self._child.stdin.flush()

    def wait(self, wanted: Sequence[Examples], pixels: PixelFormat) -> None:
        """Waits until the process is done, and shows how far it is.

        Args:
          wanted: the pictures, as they are opened here.
          pixels: how they are decoded.
        """
        root = row_store.store_folder()
        rows = [one for examples in wanted for one in stores(examples, pixels)]
        done = sum(row_store.count_filled(root, one) for one in rows)
        with Bar("decoding pictures", sum(one.count for one in rows), completed=done) as bar:
            while self._child.poll() is None:
                time.sleep(_POLL_S)
                before, done = done, sum(row_store.count_filled(root, one) for one in rows)
                bar.advance(max(0, done - before))

    def __enter__(self) -> DecodingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        _child.end(self._child, wait_s=_END_S)


def _serve() -> None:
    """Fills the stores that standard input asks for; the process' main function."""
    os.nice(_NICE)
    # Whoever asked says it all again where it is not done here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sources, data_dir, limit, disjoint, pixels = pickle.load(sys.stdin.buffer)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which removes what is not complete
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    halves = open_halves(sources, data_dir, {}, limit=limit, disjoint=disjoint)
    root = row_store.store_folder()
    for examples in halves:
        # What is there and not whole is left to whoever opens it, and says so.
        if not any((root / rows.key).exists() for rows in stores(examples, pixels)):
            open_rows(examples, pixels, "on")


def _end_with_the_asker() -> None:
    sys.stdin.buffer.read(1)  # nothing more is sent: this returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)  # to the main thread, which may be waiting
