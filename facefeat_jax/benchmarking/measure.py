"""How stages are timed, and the memory of a process as the system counts it.

Imports nothing of JAX's, so that a process that measures something else (PyTorch) pays for nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

import psutil

_ROLLUP = Path("/proc/self/smaps_rollup")
Settings = dict[str, Any]
MOST_CALLS = 1000  # in a round


class Measurement(Protocol):
    """Something that is measured round by round.

    Attributes:
      about: what is known before the first round, as JSON values.
    """

    about: dict[str, Any]

    def round(self) -> dict[str, Any]:
        """Does one round; returns `seconds`, `images` where there are any, and what else was seen."""

    def close(self) -> dict[str, Any]:
        """Ends it; returns what is known afterwards, memory for example."""


class Once:
    """A measurement whose round is one call of a function that returns the round's figures."""

    def __init__(
        self,
        run: Callable[[], dict[str, Any]],
        *,
        about: dict[str, Any] | None = None,
        after: Callable[[], dict[str, Any]] = dict,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.about = about or {}
        self._run, self._after, self._clock = run, after, clock

    def round(self) -> dict[str, Any]:
        started = self._clock()
        found = self._run()
        return {"seconds": self._clock() - started, **found}

    def close(self) -> dict[str, Any]:
        return self._after()


class Repeated:
    """A measurement whose round is as many calls of a function as fill a given time, at least one.

    The first call is timed by itself, since it compiles; the second says how long one takes from then on.

    Args:
      call: starts the work once. It may return before the work is done.
      wait: returns when all work that was started is done.
      images: pictures in one call.
      seconds: how long a round should take.
      about: what else is known before the first round.
      after: returns what is known after the last.
      clock: seconds that only grow.
    """

    def __init__(
        self,
        call: Callable[[], object],
        wait: Callable[[], object],
        *,
        images: int,
        seconds: float,
        about: dict[str, Any] | None = None,
        after: Callable[[], dict[str, Any]] = dict,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._call, self._wait, self._clock = call, wait, clock
        self._images, self._after = images, after
        first, steady = self._timed(1), self._timed(1)
        self._calls = max(1, min(MOST_CALLS, round(seconds / max(steady, 1e-9))))
        if self._calls > 1:  # the second call is not yet at full speed where calls overlap
            few = min(self._calls, 5)
            steady = self._timed(few) / few
            self._calls = max(1, min(MOST_CALLS, round(seconds / max(steady, 1e-9))))
        self.about = {
            "first_call_seconds": first,
            "compile_seconds": max(first - steady, 0.0),
            "calls_per_round": self._calls,
            **(about or {}),
        }

    def _timed(self, calls: int) -> float:
        started = self._clock()
        for _ in range(calls):
            self._call()
        self._wait()
        return self._clock() - started

    def round(self) -> dict[str, Any]:
        return {"seconds": self._timed(self._calls), "images": self._images * self._calls, "calls": self._calls}

    def close(self) -> dict[str, Any]:
        return self._after()


def answers() -> TextIO:
    """Returns standard output for what is answered; whatever else this process prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def anonymous_bytes() -> int | None:
    """Returns the bytes of memory that belong to no file: what this process holds however full the page cache is.

    Pages of a memory-mapped file don't count, since the system can drop them. None where the system doesn't say.
    """
    try:
        for line in _ROLLUP.read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def host_memory() -> dict[str, int]:
    """Returns `anonymous_bytes` and `peak_resident_bytes` of this process, where the system says them."""
    found = {}
    if (anonymous := anonymous_bytes()) is not None:
        found["anonymous_bytes"] = anonymous
    try:
        import resource

        unit = 1 if os.uname().sysname == "Darwin" else 1024
        found["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except (ImportError, AttributeError):  # Windows
        found["peak_resident_bytes"] = psutil.Process().memory_info().rss
    return found
