"""What a benchmark finds, line by line, on disk before it goes on: killed at any moment, all of it can be read.

Each line is JSON with the time at which it was written. A line that was cut, the last one, is left out.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

ROUNDS = "rounds.jsonl"

Event = dict[str, Any]


class Lines:
    """A file of lines that are only ever added.

    Args:
      path: of the file; it is made.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._started = time.perf_counter()

    def elapsed(self) -> float:
        """Returns the seconds since it was begun."""
        return time.perf_counter() - self._started

    def write(self, what: str, **found: Any) -> Event:
        """Writes a line and waits until it is on disk; returns what stands in it."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        event = {"what": what, "time": now, "elapsed": round(self.elapsed(), 3), **found}
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(event).encode() + b"\n")
            os.fsync(file.fileno())
        return event


class Journal(Lines):
    """The lines of one benchmark; `what` is one of those that `add` knows.

    Attributes:
      results: what they come to: see docs/benchmarks/README.md.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self.results: dict[str, Any] = {"cases": []}

    def write(self, what: str, **found: Any) -> Event:
        event = super().write(what, **found)
        add(self.results, event)
        return event


def read_journal(path: Path) -> dict[str, Any]:
    """Returns what the lines of a benchmark come to.

    Raises:
      OSError: the file can't be read.
      ValueError: it holds something else.
    """
    results: dict[str, Any] = {"cases": []}
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:  # what follows the last line's end is empty, or was cut
        add(results, json.loads(line))
    return results


def add(results: dict[str, Any], event: Event) -> None:
    """Adds what a line says to results.

    `begin` says what is measured and on what, `data` what the pictures are, `case` begins a case; `opened`, `round`,
    `closed` and `failed` are of an entry of it, `done` or `skipped` ends it; `end` is the last.
    """
    what, elapsed = event["what"], event["elapsed"]
    if what == "begin":
        results |= event["results"]
    elif what == "data":
        results["data"] = event["data"]
    elif what == "case":
        results["cases"].append(event["case"])
    elif what in ("done", "skipped"):
        results["cases"][-1][what] = event.get("why", True)
    elif what != "end":
        entry = results["cases"][-1]["entries"][event["entry"]]
        if what == "round":
            entry["rounds"].append(event["found"])
        else:
            entry[{"opened": "about", "closed": "after", "failed": "error"}[what]] = event["found"]
    results["seconds"] = elapsed


def finished(results: dict[str, Any]) -> set[str]:
    """Returns the names of the cases that were measured to their end."""
    return {case["name"] for case in results["cases"] if case.get("done")}
