"""What Ctrl-C and SIGTERM do to a command: the first stops it in order, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Like a KeyboardInterrupt, it passes through code that catches every `Exception`."""


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Inside, the first signal raises KeyboardInterrupt or `Terminated`, and the second ends the process.

    Does nothing outside the main thread, where Python lets nobody handle signals.
    """
    previous = {}
    try:
        for number in NUMBERS:
            previous[number] = signal.signal(number, stop)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop(number: int, frame: FrameType | None) -> None:
    """The handler of the first signal."""
    del frame
    for each in NUMBERS:
        signal.signal(each, stop_at_once)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """The handler of the second signal: waits for no thread and no file.

    What is written whole or not at all stays so.
    """
    del frame
    os.write(2, b"facefeat: stopped at once\n")
    os._exit(128 + number)
