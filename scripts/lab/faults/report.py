"""From counts to Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefeat_jax.system import environment
from facefeat_jax.system.errors import UserError

_FORMAT = 1
_CRASHES = ("crash: ", "command: ")  # kinds of failures: a process that died, or a command that ended as none should
_KEYS = {"format", "campaign", "tried", "survived", "counts", "failures", "environment", "command"}


def read(path: Path) -> dict[str, Any]:
    """Reads what a campaign wrote.

    Raises:
      UserError: it is not that.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); give the JSON file of a fault campaign") from error
    if not isinstance(result, dict) or not result.keys() >= _KEYS or result["format"] != _FORMAT:
        raise UserError(f"{path} is not what a fault campaign of this version wrote; run the campaign again")
    return result


def line(result: dict[str, Any]) -> str:
    """Returns a campaign in one line."""
    failed = result["tried"] - result["survived"]
    first = f"; the first: {result['failures'][0]}" if result["failures"] else ""
    return (
        f"{result['campaign']}: {result['tried']:,} tried, {result['survived']:,} handled, {failed:,} failed, in "
        f"{result['seconds']:,.0f} s{first}"
    )


def report(results: Sequence[dict[str, Any]]) -> str:
    """Returns the page of one or more campaigns."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "bad inputs, and good ones between them": [],
        "faults: kills, signals, full disks, damaged checkpoints": [],
        "load: pictures predicted in one call": [],
    }
    bad, faults, load = kinds.values()
    for result in results:
        (bad if result["are_inputs"] else load if result["campaign"] == "load" else faults).append(result)
    lines = [
        "# Fault tests",
        "",
        "`make faults` writes this page. Its campaigns cause the faults that a program meets when it runs overnight on "
        "a shared machine, on files from the internet. A fault counts as handled if the program gives the correct "
        "result or refuses the input in one line, and loses nothing. `make test` runs a short sample of each campaign. "
        "All random choices come from the seed in the command, so you can repeat every failure.",
        "",
        "| | tried | handled | failed | of these, crashes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, some in kinds.items():
        if some:
            tried, survived = (sum(result[key] for result in some) for key in ("tried", "survived"))
            crashes = sum(failure.startswith(_CRASHES) for result in some for failure in result["failures"])
            lines.append(f"| {title} | {tried:,} | {survived:,} | {tried - survived:,} | {crashes:,} |")
    for result in results:
        lines += ["", *_campaign(result)]
    return "\n".join(lines) + "\n"


def _campaign(result: dict[str, Any]) -> list[str]:
    env = result["environment"]
    short = "" if result["is_full"] else " **This was a short run, which shows little.**"
    lines = [
        f"## {result['name'].capitalize()}",
        "",
        f"{result['what'][0].upper()}{result['what'][1:]}.{short}",
        "",
        f"- {result['date']}, {result['seconds']:.0f} s, commit {result['commit'] or 'unknown'}: `{result['command']}`",
        f"- {environment.line(env)}",
        "",
        "| fault | tried | failed |",
        "| --- | --- | --- |",
    ]
    for kind, count in result["counts"].items():
        failed = sum(failure.startswith(f"{kind}: ") for failure in result["failures"])
        lines.append(f"| {_plain(kind)} | {count:,} | {failed or ''} |")
    lines.append(f"| **total** | **{result['tried']:,}** | **{result['tried'] - result['survived']:,}** |")
    if result["failures"]:
        lines += ["", "Failed:", ""]
        lines += [f"- {_plain(failure[:300])}" for failure in result["failures"][:10]]
    return lines


def _plain(text: str) -> str:
    """Returns text that Markdown leaves as it is, on one line."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown.translate({ord(mark): f"\\{mark}" for mark in "\\<>*_`[]#"} | {ord("|"): "&#124;"})
