"""The worker's half: a process that opens one measurement at a time and does a round of it whenever it is told to.

Requests come as lines of JSON on standard input, answers go as lines of JSON to standard output. Imports nothing but
the standard library and `errors`, so that a side that needs neither JAX nor our models pays for neither.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from facefeat_jax.benchmarking.memory import host_memory
from facefeat_jax.errors import UserError

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


def serve(operations: Mapping[str, Callable[[Settings], Measurement]]) -> None:
    """Answers requests until standard input ends; the main of a worker.

    Whatever else the process prints goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measurement: Measurement | None = None

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal measurement
        match request["do"]:
            case "open":
                if request["operation"] not in operations:
                    raise UserError(f"this side has no operation {request['operation']!r}")
                measurement = operations[request["operation"]](request["settings"])
                return measurement.about
            case "round":
                assert measurement is not None
                return measurement.round()
            case "close":
                assert measurement is not None
                found = {**host_memory(), **measurement.close()}
                measurement = None
                return found
        raise UserError(f"no request {request['do']!r}")

    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"result": answer(json.loads(line))}
        except UserError as error:
            reply = {"error": " ".join(str(error).split())}
        except Exception as error:  # the other sides go on without this one
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
