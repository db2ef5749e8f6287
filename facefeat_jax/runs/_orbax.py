"""What Orbax is told to keep and not to print, and its errors in one line."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from facefeat_jax.system.errors import UserError


class Kept:
    """Which checkpoints stay: the newest, and the best of a run (a `PreservationPolicy` of Orbax)."""

    def __init__(self, newest: int):
        self.newest = newest
        self.best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context
        newest = {info.step for info in checkpoints[-self.newest :]}
        return [info.step in newest or info.step == self.best for info in checkpoints]


def quiet() -> None:
    """Leaves out what Orbax and asyncio print where a file can't be read or written.

    The first error is raised and reported in a line. Then the loop that waits for the other files is closed, and each
    file that fails as well would print a traceback, as would asyncio for those that failed before.
    """
    logging.getLogger("absl").addFilter(_is_not_orbax)
    logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
    if getattr(sys.unraisablehook, "leaves_out_leftovers", False):
        return
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    hook.leaves_out_leftovers = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Leaves out what asyncio logs of tasks of Orbax's that failed after the first error."""
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None:
        if "orbax" in trace.tb_frame.f_code.co_filename:
            return False
        trace = trace.tb_next
    return True


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Leaves out what Orbax logs: warnings that a read-only manager is read-only, and tracebacks of what it raises."""
    return "orbax" not in record.pathname


def reason(error: BaseException) -> str:
    """Returns the first line of an error, or of the error that it wraps."""
    while error.__cause__ is not None:
        error = error.__cause__
    for code in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(code) in str(error):
            return os.strerror(code)  # TensorStore says which of hundreds of files, at length
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Reports in one line why a checkpoint can't be written; Orbax leaves no half-written checkpoint behind."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"a checkpoint can't be written to {folder} ({reason(error)}); make room, then continue with --resume"
        ) from error
