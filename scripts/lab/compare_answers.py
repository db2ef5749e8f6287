"""Compares the answers of several commands for the same pictures: one model, by several runtimes.

    python scripts/lab/compare_answers.py pictures.txt --to answers.md \
        --by "JAX=facefeat predict runs/real - --out {}" --by "ONNX Runtime=facefeat predict model.onnx - --out {}"

A command gets the names of the pictures on standard input, a line each, and writes JSON lines, as `facefeat predict`
does, to the file that stands for {}. In place of a command, a file of such lines is taken as it is, as in
`Ray=answers.jsonl`; and http://HOST:PORT is `facefeat serve`, which gets the pictures (by curl). The first is what the
others are compared with.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from common import write_results
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say

PACKAGES = (*environment.PACKAGES, "onnx", "onnxruntime", "ray", "fastapi", "uvicorn")

Answers = dict[tuple[str, int], dict[str, Any]]  # by file and person


@dataclasses.dataclass(frozen=True)
class Options:
    """What is compared, and where the results go."""

    pictures: tyro.conf.Positional[Path]
    """A file with the names of the pictures, a line each."""
    by: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=COMMAND")]
    """A name and a command, or a file of answers; several, of which the first is the reference."""
    to: Path | None = None
    """The page of results, and a .json beside it."""


def answers_by(command: str, pictures: Path) -> tuple[Answers, float | None]:
    """Returns the answers of a command or a file, and how many seconds the command took."""
    if command.startswith("http://"):
        started = time.perf_counter()
        return by_server(command, pictures.read_text().splitlines()), time.perf_counter() - started
    if Path(command).is_file():
        return read(Path(command)), None
    with tempfile.TemporaryDirectory() as folder, pictures.open() as names:
        out = Path(folder) / "answers.jsonl"
        started = time.perf_counter()
        done = subprocess.run([word.replace("{}", str(out)) for word in shlex.split(command)], stdin=names, check=False)
        if not out.exists():
            raise UserError(f"{command}: wrote no answers (exit code {done.returncode})")
        return read(out), time.perf_counter() - started


def by_server(address: str, names: Sequence[str]) -> Answers:
    """Returns the answers of a server, which gets eight pictures at a time."""
    found: Answers = {}
    for start in range(0, len(names), 8):
        part = names[start : start + 8]
        files = [word for name in part for word in ("-F", f"pictures=@{name}")]
        done = subprocess.run(["curl", "-s", *files, f"{address}/v1/predict"], capture_output=True, check=True)
        for one in json.loads(done.stdout)["results"]:
            found[part[one["picture"]], 0] = {"heads": {}, **one}
    return found


def read(file: Path) -> Answers:
    """Returns the answers of a file of JSON lines."""
    found = map(json.loads, file.read_text().splitlines())
    return {(one["file"], one.get("person", 0)): {"heads": {}, **one} for one in found}


def compared(reference: Answers, answers: Answers) -> dict[str, Any]:
    """Returns how answers differ from the reference: counts, and the largest difference in probability by head."""
    same = reference.keys() & answers.keys()
    heads = sorted({task for one in reference.values() for task in one["heads"]})
    result: dict[str, Any] = {"pictures": len(answers), "missing": len(reference.keys() - answers.keys()), "heads": {}}
    result["other_errors"] = sum(reference[key].get("error") != answers[key].get("error") for key in same)
    result["other_notes"] = sum(reference[key].get("note") != answers[key].get("note") for key in same)
    for task in heads:
        pairs = [
            (reference[key]["heads"][task], answers[key]["heads"][task])
            for key in same
            if task in reference[key]["heads"] and task in answers[key]["heads"]
        ]
        result["heads"][task] = {
            "labels": sum(one["label"] != other["label"] for one, other in pairs),
            "unsure": sum(one["unsure"] != other["unsure"] for one, other in pairs),
            "unlike": sum(one.get("unlike", False) != other.get("unlike", False) for one, other in pairs),
            "largest": max((_difference(*pair) for pair in pairs), default=0.0),
            "pictures": len(pairs),
        }
    return result


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return max(abs(one["probabilities"][name] - other["probabilities"][name]) for name in one["probabilities"])


def page(results: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""
    first, rows = results["by"][0], []
    for entry in results["by"][1:]:
        for task, head in entry["differences"]["heads"].items():
            share = 1 - head["labels"] / head["pictures"]
            counts = [f"{head[name]:,}" for name in ("labels", "unsure", "unlike")]
            rows.append(
                (entry["name"], task, f"{head['pictures']:,}", f"{share:.2%}", *counts, f"{head['largest']:.1e}")
            )
    lines = [
        "# The same answers by several runtimes",
        "",
        *environment.record_lines(results),
        "",
        f"{results['pictures']:,} pictures, answered by each command; what differs from {first['name']}.",
        "",
        *markdown.table(
            ("by", "head", "pictures", "same label", "other label", "other `unsure`", "other `unlike`", "largest"), rows
        ),
        "",
        "*largest*: the largest difference in probability of any class.",
        "",
    ]
    for entry in results["by"]:
        how = markdown.code(entry["command"])
        lines.append(f"- {entry['name']}: {how}" + (f", {entry['seconds']:.1f} s" if entry["seconds"] else ""))
        found = entry.get("differences", {})
        if others := [
            f"{found[name]:,} {name.replace('_', ' ')}"
            for name in found
            if name not in ("heads", "pictures") and found[name]
        ]:
            lines[-1] += f"; {', '.join(others)}"
    return "\n".join([*lines, ""])


def without_folders(command: str) -> str:
    """Returns a command without the folders of this machine."""
    return shlex.join(
        word if "{}" in word else Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command)
    ).replace("'{}'", "{}")


def measure(options: Options) -> dict[str, Any]:
    """Returns the results."""
    named: list[tuple[str, str]] = []
    for text in options.by:
        name, separator, command = text.partition("=")
        if not separator:
            raise UserError(f"--by takes NAME=COMMAND, got {text!r}")
        named.append((name, command))
    entries: list[dict[str, Any]] = []
    reference: Answers = {}
    for name, command in named:
        answers, seconds = answers_by(command, options.pictures)
        entry: dict[str, Any] = {"name": name, "command": without_folders(command), "seconds": seconds}
        if entries:
            entry["differences"] = compared(reference, answers)
        else:
            reference = answers
        entries.append(entry)
        say(f"{name}: {len(answers):,} answers")
    pictures = len(options.pictures.read_text().splitlines())
    record = environment.record("python scripts/lab/compare_answers.py", PACKAGES, devices="CPU")
    return {**record, "pictures": pictures, "by": entries}


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = tyro.cli(Options, args=words, description=__doc__, config=(tyro.conf.UseAppendAction,))
    results = measure(options)
    write_results(page(results), results, options.to)


if __name__ == "__main__":
    run_and_exit(main)
