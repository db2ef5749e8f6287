"""From counts to Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import read_results
from facefeat_jax.system.environment import record_lines
from facefeat_jax.system.markdown import escaped, filled, table

_CRASHES = ("crash: ", "command: ")  # kinds of failures: a process that died, or a command that ended as none should
_KEYS = ("campaign", "tried", "survived", "counts", "failures", "environment", "command")
FORMAT = 1


def read(path: Path) -> dict[str, Any]:
    """Reads what a campaign wrote.

    Raises:
      UserError: it is not that.
    """
    return read_results(path, "a fault campaign", _KEYS, FORMAT)


def line(result: dict[str, Any]) -> str:
    """Returns a campaign in one line."""
    failed = result["tried"] - result["survived"]
    first = f"; the first: {result['failures'][0]}" if result["failures"] else ""
    return (
        f"{result['campaign']}: {result['tried']:,} tried, {result['survived']:,} handled, {failed:,} failed, in "
        f"{result['seconds']:,.0f} s{first}"
    )


def report(results: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of the page of one or more campaigns."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "bad inputs, and good ones between them": [],
        "faults: kills, signals, full disks, damaged checkpoints": [],
        "load: pictures predicted in one call": [],
    }
    bad, faults, load = kinds.values()
    for result in results:
        (bad if result["are_inputs"] else load if result["campaign"] == "load" else faults).append(result)
    kinds = {title: some for title, some in kinds.items() if some}
    lines = [
        "# Fault tests",
        "",
        "`make faults` writes this page. Its campaigns cause the faults that a program meets when it runs overnight on "
        "a shared machine, on files from the internet. A fault counts as handled if the program gives the correct "
        "result or refuses the input in one line, and loses nothing. `make test` runs a short sample of each campaign. "
        "All random choices come from the seed in the command, so you can repeat every failure.",
        "",
        *table(["", "tried", "handled", "failed", "of these, crashes"], map(_total, kinds, kinds.values())),
    ]
    for result in results:
        lines += ["", *_campaign(result)]
    return lines


def _total(title: str, results: Sequence[dict[str, Any]]) -> list[str]:
    tried, survived = (sum(result[key] for result in results) for key in ("tried", "survived"))
    crashes = sum(failure.startswith(_CRASHES) for result in results for failure in result["failures"])
    return [title, *(f"{number:,}" for number in (tried, survived, tried - survived, crashes))]


def _campaign(result: dict[str, Any]) -> list[str]:
    short = "" if result["is_full"] else " **This was a short run, which shows little.**"
    rows = []
    for kind, count in result["counts"].items():
        failed = sum(failure.startswith(f"{kind}: ") for failure in result["failures"])
        rows.append([escaped(kind), f"{count:,}", failed or ""])
    rows.append(["**total**", *(f"**{n:,}**" for n in (result["tried"], result["tried"] - result["survived"]))])
    lines = [
        f"## {result['name'].capitalize()}",
        "",
        f"{result['what'][0].upper()}{result['what'][1:]}.{short}",
        "",
        *record_lines(result),
        "",
        *table(["fault", "tried", "failed"], rows),
    ]
    if result["failures"]:
        lines += ["", "Failed:", "", *(filled("- {}", failure[:300]) for failure in result["failures"][:10])]
    return lines
