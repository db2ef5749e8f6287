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
from dataclasses import dataclass, field
from typing import Any

import psutil

from facefeat_jax.system.errors import UserError

Settings = dict[str, Any]
Found = dict[str, Any]  # what was measured, as JSON values
MOST_CALLS = 1000  # in a round


@dataclass(frozen=True)
class Measurement:
    """Something that is measured round by round."""

    run: Callable[[], Found]  # does one round; returns `images`, where there are any, and what else was seen
    about: Found = field(default_factory=dict)  # what is known before the first round

    def round(self) -> Found:
        """Does one round; returns its `seconds` and what it found."""
        started = time.perf_counter()
        found = self.run()
        return {"seconds": time.perf_counter() - started, **found}


def repeated(
    call: Callable[[], object], wait: Callable[[], object], *, images: int, seconds: float, **about: Any
) -> Measurement:
    """Returns a measurement whose round is as many calls of a function as fill a given time, at least one.

    The first call is timed by itself, since it compiles; later ones say how long one takes from then on.

    Args:
      call: starts the work once. It may return before the work is done.
      wait: returns when all work that was started is done.
      images: pictures in one call.
      seconds: how long a round should take.
      **about: what else is known before the first round.
    """

    def timed(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        return time.perf_counter() - started

    def filling(each: float) -> int:
        return max(1, min(MOST_CALLS, round(seconds / max(each, 1e-9))))

    first, steady = timed(1), timed(1)
    if (few := min(filling(steady), 5)) > 1:  # the second call is not yet at full speed where calls overlap
        steady = timed(few) / few
    calls = filling(steady)

    def run() -> Found:
        timed(calls)
        return {"images": images * calls, "calls": calls}

    compiling = max(first - steady, 0.0)
    return Measurement(
        run, {"first_call_seconds": first, "compile_seconds": compiling, "calls_per_round": calls, **about}
    )


def serve(operations: Mapping[str, Callable[[Settings], Measurement]], after: Callable[[], Found] = dict) -> None:
    """Measures what lines of JSON on standard input ask for, and answers each with one; ends with its input.

    `{"do": "open", "operation": ..., "settings": ...}` sets a measurement up, `{"do": "round"}` does a round of it,
    `{"do": "close"}` ends it. Answers are `{"result": ...}` or `{"error": one line}`. Whatever else the process prints
    goes to standard error.

    Args:
      operations: what it can measure.
      after: returns what is known after the last round, memory for example.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measurement = Measurement(dict)

    def answer(request: dict[str, Any]) -> Found:
        nonlocal measurement
        if request["do"] == "round":
            return measurement.round()
        if request["do"] == "close":
            return {"peak_resident_bytes": peak_memory(), **after()}
        if request["operation"] not in operations:
            raise UserError(f"this side has no operation {request['operation']!r}")
        measurement = operations[request["operation"]](request["settings"])
        return measurement.about

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
