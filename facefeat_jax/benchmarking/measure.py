"""How stages are timed, and the memory of a process as the system counts it.

Imports nothing of JAX's, so that a process that measures something else (PyTorch) pays for nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from facefeat_jax.system.errors import UserError

Settings = dict[str, Any]
Found = dict[str, Any]  # what was measured, as JSON values
MOST_CALLS = 1000  # in a round


class Measurement:
    """Something that is measured round by round.

    Args:
      run: does one round; returns `images`, where there are any, and what else was seen.
      about: what is known before the first round.
      after: returns what is known after the last, memory for example.
      clock: seconds that only grow.
    """

    def __init__(
        self,
        run: Callable[[], Found],
        *,
        about: Found | None = None,
        after: Callable[[], Found] = dict,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.about, self.close = about or {}, after
        self._run, self._clock = run, clock

    def round(self) -> Found:
        """Does one round; returns its `seconds` and what it found."""
        started = self._clock()
        found = self._run()
        return {"seconds": self._clock() - started, **found}


def repeated(
    call: Callable[[], object],
    wait: Callable[[], object],
    *,
    images: int,
    seconds: float,
    about: Found | None = None,
    after: Callable[[], Found] = dict,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Returns a measurement whose round is as many calls of a function as fill a given time, at least one.

    The first call is timed by itself, since it compiles; later ones say how long one takes from then on.

    Args:
      call: starts the work once. It may return before the work is done.
      wait: returns when all work that was started is done.
      images: pictures in one call.
      seconds: how long a round should take.
      about: what else is known before the first round.
      after: as in `Measurement`.
      clock: as in `Measurement`.
    """

    def timed(calls: int) -> float:
        started = clock()
        for _ in range(calls):
            call()
        wait()
        return clock() - started

    def filling(each: float) -> int:
        return max(1, min(MOST_CALLS, round(seconds / max(each, 1e-9))))

    first, steady = timed(1), timed(1)
    if (few := min(filling(steady), 5)) > 1:  # the second call is not yet at full speed where calls overlap
        steady = timed(few) / few
    calls = filling(steady)
    known = {"first_call_seconds": first, "compile_seconds": max(first - steady, 0.0), "calls_per_round": calls}

    def run() -> Found:
        timed(calls)
        return {"images": images * calls, "calls": calls}

    return Measurement(run, about={**known, **(about or {})}, after=after, clock=clock)


def serve(operations: Mapping[str, Callable[[Settings], Measurement]]) -> None:
    """Measures what lines of JSON on standard input ask for, and answers each with one; ends with its input.

    `{"do": "open", "operation": ..., "settings": ...}` sets a measurement up, `{"do": "round"}` does a round of it,
    `{"do": "close"}` ends it. Answers are `{"result": ...}` or `{"error": one line}`. Whatever else the process prints
    goes to standard error.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measurement: Measurement | None = None

    def answer(request: dict[str, Any]) -> Found:
        nonlocal measurement
        if request["do"] == "open":
            if request["operation"] not in operations:
                raise UserError(f"this side has no operation {request['operation']!r}")
            measurement = operations[request["operation"]](request["settings"])
            return measurement.about
        if measurement is None:
            raise UserError("no measurement is open")
        return (
            measurement.round()
            if request["do"] == "round"
            else {"peak_resident_bytes": peak_memory(), **measurement.close()}
        )

    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"result": answer(json.loads(line))}
        except UserError as error:
            reply = {"error": " ".join(str(error).split())}
        except Exception as error:  # the other stages and sides are measured without this one
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        print(json.dumps(reply), file=out, flush=True)


def peak_memory() -> int:
    """Returns the most memory that this process has held, in bytes; where the system doesn't say, what it holds now."""
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().rss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
