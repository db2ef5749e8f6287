"""Campaigns whose cases run in a process of their own, one after the other: it may die of any of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from faults.processes import environment
from faults.tally import Tally

_TIMEOUT_S = 120.0  # without a word of the process


def follow(module: str, tally: Tally, work: Path, count: int, seed: int) -> None:
    """Has a process of `module` try the cases up to `count`, and another go on after each that it dies of."""
    number = 0
    work.mkdir(parents=True, exist_ok=True)
    while number < count:
        command = [sys.executable, "-m", module, str(work), str(number), str(count), str(seed)]
        with (
            (work / "cases.stderr").open("wb") as err,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment(work), text=True) as child,
        ):
            while line := _line_in_time(child):
                case = json.loads(line)
                tally.add(not case["failure"], case["kind"], f"case {number} of seed {seed}: {case['failure']}")
                number += 1
        if number < count:
            # It died, or hung, with this one.
            said = (work / "cases.stderr").read_text(errors="replace")[-500:]
            tally.add(False, "crash", f"case {number} of seed {seed}: exit code {child.returncode}: {said}")
            number += 1


def _line_in_time(child: subprocess.Popen[str]) -> str:
    overdue = threading.Timer(_TIMEOUT_S, child.kill)
    overdue.start()
    try:
        assert child.stdout is not None
        return child.stdout.readline()
    finally:
        overdue.cancel()


def each(first: int, last: int, prepare: Callable[[int], tuple[str, Callable[[], str]]]) -> None:
    """Tries the cases from `first` to `last` and prints a line of JSON for each: what `follow` reads.

    Args:
      first: number of the first case.
      last: number after the last case.
      prepare: returns the kind of a case, and what tries it: that returns what went wrong, or nothing.
    """
    for number in range(first, last):
        kind, attempt = prepare(number)
        try:
            failure = attempt()
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        print(json.dumps({"kind": kind, "failure": failure}), flush=True)


def call(main: Callable[[Path, int, int, int], None]) -> None:
    """Calls the `main` of a campaign's process with the words of its command line: WORK FIRST LAST SEED."""
    first, last, seed = map(int, sys.argv[2:5])
    main(Path(sys.argv[1]), first, last, seed)
