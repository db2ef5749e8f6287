"""`facefeat benchmark`: its cases, each measured in a process of its own, and the table of results."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from facefeat_jax.system import environment
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.markdown import table
from facefeat_jax.system.progress import say, show_json
from facefeat_jax.system.text import format_size

RESULTS, REPORT = "results.json", "report.md"
FORMAT = 1
STAGES = ("matmul", "step", "forward", "start", "decode", "feed", "validation", "job")
_ON_DATA = ("start", "decode", "feed", "validation", "job")
_TIMEOUT = 3600  # seconds, of one case


class Size(NamedTuple):
    """How much a plan measures."""

    image_size: int = 224  # pixels
    batch: int = 32  # pictures per step
    rounds: int = 5
    round_seconds: float = 2.0
    matmul: int = 4096  # rows and columns
    pictures: int = 1500  # to decode in a round
    start_limit: int = 64  # pictures of each split in the runs that measure the first and second start
    job_limit: int | None = None  # the same for the whole job; None means all


PLANS = {"full": Size(), "quick": Size(32, 8, 2, 0.1, 256, 60, 8, 60)}


class Case(NamedTuple):
    """One measurement: an operation of `stages`, done by each entry in a process of its own, one after the other."""

    name: str  # it begins with one of `STAGES`
    operation: str
    rounds: int
    settings: dict[str, Any]
    entries: dict[str, dict[str, Any]] = {"ours": {}}  # noqa: RUF012  (further settings, by name; never changed)


def cases(size: Size, threads: int) -> list[Case]:
    """Returns the cases, the most valuable first, in case time runs out."""
    pictures = {"image_size": size.image_size, "batch": size.batch}
    steps = {**pictures, "task": "gender", "precision": "auto", "round_seconds": size.round_seconds}
    feeds = {"ours": "stream", "ours, on the device": "device"}
    several, fields = max(2, size.rounds - 2), {"batch_size": size.batch, "epochs": 1}
    start = {"recipe": "fast", "fields": {**fields, "limit": size.start_limit}}
    feed = {name: {"fields": {**fields, "packed": "on", "feed": feed}} for name, feed in feeds.items()}
    return [
        Case("matmul/auto", "matmul", size.rounds, {**steps, "size": size.matmul}),
        *(Case(f"step/{part}", "step", size.rounds, {**steps, "trainable": part}) for part in ("layer4", "all")),
        *(Case(f"forward/{n}", "forward", size.rounds, {**steps, "batch": n}) for n in (1, size.batch)),
        # The second finds the compiled programs and the decoded pictures of the first.
        Case("start/fast", "job", 1, pictures, {"first": start, "second": start}),
        Case("decode", "decode", several, {**pictures, "pictures": size.pictures, "threads": threads}),
        Case("feed", "feed", several, {**pictures, "batches": 20, "task": "gender"}, feed),
        Case("validation", "validation", 2, {**steps, "fields": {"packed": "on"}}),
        Case(
            "job/fast", "job", 1, pictures, {"ours": {"recipe": "fast", "fields": {**fields, "limit": size.job_limit}}}
        ),
    ]


@dataclass(frozen=True)
class Arguments:
    """Measures the speed of each stage on this machine, from encoded pictures to the table of results."""

    out: Path = Path("runs/benchmark")
    """A new folder for results.json and report.md."""
    plan: Literal["full", "quick"] = "full"
    """How much to measure. `quick` takes a minute or two and only shows that everything works."""
    stages: tuple[str, ...] = ()
    """Stages to measure: matmul, step, forward, start, decode, feed, validation, job. The default is all."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    sources: tuple[str, ...] = ()
    """Data sets to use. The default is fairface, glasses and apparel if they are prepared, otherwise avatars. If none
    is prepared, the stages that need pictures are left out."""
    budget: float | None = None
    """Seconds after which no new case is started."""
    json: bool = False
    """Print the results as JSON instead of a table."""


def run(arguments: Arguments) -> int:
    """Measures, writes the results after each case and prints them; returns the exit code.

    Raises:
      UserError: bad input. Where one case fails, the others are measured, and the exit code is 1.
    """
    from facefeat_jax.data.dataset import default_data_dir
    from facefeat_jax.runs.run_folder import write_file, write_json
    from facefeat_jax.system.runtime import cores

    if unknown := sorted(set(arguments.stages) - set(STAGES)):
        raise UserError(f"no stage {', '.join(unknown)}; choose from {', '.join(STAGES)}")
    if (arguments.out / RESULTS).exists():
        raise UserError(f"{arguments.out} already holds results; give --out a new folder")
    data_dir = arguments.data_dir or default_data_dir()
    sources, missing = _prepared(data_dir, arguments.sources)
    data = {"data_dir": str(data_dir), "sources": sources}
    if missing and set(arguments.stages) & set(_ON_DATA):
        raise UserError(missing)
    arguments.out.mkdir(parents=True, exist_ok=True)
    started, failed = time.monotonic(), False
    results: dict[str, Any] = {
        "format": FORMAT,
        **environment.record(environment.typed("facefeat"), devices=""),
        "plan": arguments.plan,
        "device": "",
        "sides": {"ours": {"title": "facefeat_jax", "absent": ""}},
        "cases": [],
    }
    for case in cases(PLANS[arguments.plan], cores()):
        stage, elapsed = case.name.partition("/")[0], time.monotonic() - started
        if stage not in (arguments.stages or STAGES):
            continue
        record: dict[str, Any] = {"name": case.name, "stage": stage, "operation": case.operation}
        record["settings"] = case.settings
        if missing and stage in _ON_DATA:
            record["skipped"] = missing
        elif arguments.budget is not None and elapsed > arguments.budget:
            record["skipped"] = f"no time left of {arguments.budget:.0f} s"
        else:
            say(f"benchmark [{elapsed:.0f} s]: {case.name}")
            record["entries"] = _measured(case, arguments.out / "work", data)
        for entry in record.get("entries", {}).values():
            failed |= "error" in entry
            if after := entry.get("after"):
                results["device"], results["environment"]["devices"] = after.pop("device"), after.pop("devices")
        results["cases"].append(record)
        write_json(arguments.out / RESULTS, results)
    text = report(results)
    write_file(arguments.out / REPORT, text.encode())
    if arguments.json:
        show_json(results)
    else:
        print(text)
    say(f"results: {arguments.out / RESULTS}")
    return 1 if failed else 0


def _prepared(data_dir: Path, sources: Sequence[str]) -> tuple[list[str], str]:
    """Returns the data sets to measure with, and what is wrong where there are none."""
    from facefeat_jax.data.dataset import open_split

    missing = ""
    for names in [tuple(sources)] if sources else [("fairface", "glasses", "apparel"), ("avatars",)]:
        try:
            for name in names:
                open_split(name, "train", data_dir)
            return list(names), ""
        except UserError as error:
            if sources:
                raise
            missing = str(error)
    return [], missing


def _measured(case: Case, work: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Measures the entries of a case in turn, with caches of its own; returns their records."""
    entries: dict[str, Any] = {}
    variables = {**os.environ, "FACEFEAT_CACHE": str(work / "cache")}
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)  # programs compiled by somebody else
    try:
        for name, settings in case.entries.items():
            entries[name] = {"side": "ours", "settings": settings, "rounds": []}
            given = {**data, **case.settings, **settings, "work": str(work / name)}
            started = time.perf_counter()
            answers, error = _answers(case, given, variables)
            if error:
                entries[name]["error"] = error
                continue
            about, *rounds, after = answers
            if case.operation == "job":
                rounds[0]["wall_seconds"] = time.perf_counter() - started
            entries[name] |= {"about": about, "rounds": rounds, "after": after}
        return entries
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _answers(case: Case, settings: dict[str, Any], variables: dict[str, str]) -> tuple[list[dict[str, Any]], str]:
    """Returns what a process of its own answers (before the rounds, after each, at the end), and why it could not."""
    opening: dict[str, Any] = {"do": "open", "operation": case.operation, "settings": settings}
    requests = [opening, *({"do": "round"} for _ in range(case.rounds)), {"do": "close"}]
    asked = "".join(f"{json.dumps(request)}\n" for request in requests)
    command = [sys.executable, "-m", "facefeat_jax.benchmarking.stages"]
    try:
        done = subprocess.run(
            command, input=asked, stdout=subprocess.PIPE, text=True, env=variables, timeout=_TIMEOUT, check=False
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
    except subprocess.TimeoutExpired:
        return [], f"not done within {_TIMEOUT:,} s"
    except ValueError:
        answers = []
    if error := next((answer["error"] for answer in answers if "error" in answer), ""):
        return [], error
    if len(answers) < len(requests):
        return [], f"its process ended with exit code {done.returncode}"
    return [answer["result"] for answer in answers], ""


def report(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    rows = []
    for case in results["cases"]:
        if "skipped" in case:
            rows.append([case["name"], "", f"not measured: {case['skipped']}", "", ""])
        for name, entry in case.get("entries", {}).items():
            what = "" if name == "ours" else name.removeprefix("ours, ")
            if "error" in entry:
                rows.append([case["name"], what, f"not measured: {entry['error']}", "", ""])
                continue
            compiling = entry["about"].get("compile_seconds", entry["rounds"][0].get("compile_seconds"))
            memory = entry["after"].get("device_peak_bytes") or entry["after"]["peak_resident_bytes"]
            first = "" if compiling is None else f"{compiling:.1f} s"
            rows.append([case["name"], what, _figure(entry), first, format_size(memory)])
    lines = [
        f"# Benchmark: {results['environment']['devices'] or 'nothing measured'}",
        "",
        *environment.record_lines(results),
        "",
        *table(["stage", "", "median (lowest to highest)", "compiling", "memory"], rows, 2),
        "",
        "Pictures are those of the prepared data sets, the model is the notebook's. `start` and `job` are whole "
        "processes of the recipe `fast`, one epoch, with empty caches but for the second start. Memory is the most of "
        "the device's, or the process's where the device doesn't say.",
    ]
    return "\n".join(lines) + "\n"


def _figure(entry: dict[str, Any]) -> str:
    rounds = entry["rounds"]
    if "wall_seconds" in rounds[0]:
        return f"{rounds[0]['wall_seconds']:.1f} s"
    if per_call := entry["about"].get("flops_per_call"):
        values, unit = [per_call * round_["calls"] / round_["seconds"] / 1e12 for round_ in rounds], "TFLOP/s"
    else:
        values, unit = [round_["images"] / round_["seconds"] for round_ in rounds], "images/s"
    figures = (statistics.median(values), min(values), max(values))
    middle, low, high = (f"{number:,.0f}" if number >= 1000 else f"{number:.3g}" for number in figures)
    return f"{middle} {unit} ({low} to {high})"
