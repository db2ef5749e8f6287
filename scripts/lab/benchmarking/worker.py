"""The worker's half: a process that opens one measurement at a time and does a round of it whenever it is told to.

Requests come as lines of JSON on standard input, answers go as lines of JSON to standard output. Imports nothing but
the standard library and `errors`, so that a side that needs neither JAX nor our models pays for neither.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from facefeat_jax.benchmarking.measure import Measurement, Settings, answers, host_memory
from facefeat_jax.system.errors import UserError


def serve(operations: Mapping[str, Callable[[Settings], Measurement]]) -> None:
    """Answers requests until standard input ends; the main of a worker.

    Whatever else the process prints goes to standard error.
    """
    out = answers()
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
        out.write(json.dumps(reply) + "\n")
        out.flush()
