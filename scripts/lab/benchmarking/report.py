"""From results to Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarking import targets
from benchmarking.figures import Figures
from benchmarking.journal import ROUNDS, read_journal
from benchmarking.run import FORMAT
from benchmarking.turns import Spread, spread
from common import read_results
from facefeat_jax.system import environment
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.markdown import table
from facefeat_jax.system.text import format_size

_TRAINED = {"layer4": "layer4 and heads", "all": "all", "none": "heads"}
_BUSY = 0.3  # cores' worth of other work, above which figures are doubtful
_JOBS = {"layer4": "layer4 and heads", "heads": "heads", "baseline": "layer4 and heads, to the letter"}
_RATES = {
    "decode": ("Decode", "From picture files in the page cache to batches on the host, and nothing else."),
    "feed": (
        "Feed",
        "Training batches arrive on the device; nothing is computed. We decode once, beforehand; PyTorch each time.",
    ),
    "validation": (
        "Validation",
        "A pass over the validation pictures of one head. We decode once, beforehand; PyTorch each time.",
    ),
}


def read(path: Path) -> dict[str, Any]:
    """Reads a `results.json`, or the `rounds.jsonl` of a benchmark that was cut off.

    Raises:
      UserError: it is not one, or not of this version.
    """
    if path.suffix == ".jsonl":
        try:
            return read_journal(path)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise UserError(f"{path} can't be read ({error}); give the {ROUNDS} of a benchmark") from error
    return read_results(path, "the benchmark", ("format", "plan", "cases", "environment"), FORMAT)


def report(all_results: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of a page about one or more runs; figures of an earlier run give way to a later one's."""
    runs = [Figures(results) for results in all_results]
    lines = [
        "# Speed against PyTorch",
        "",
        "`python scripts/benchmark.py report` made this page from files of results. Each value is the median of its "
        "rounds, followed by the lowest and the highest in brackets. Ratios are computed round by round, while the "
        "sides take turns.",
    ]
    lines += ["", "## Targets", "", *targets.table(runs)]
    if any(figures.results["plan"] == "quick" for figures in runs):
        lines += ["", "Runs of the plan `quick` only show that everything works. Their times mean nothing."]
    for figures in runs:
        lines += ["", *_run(figures)]
    return lines


def _run(figures: Figures) -> list[str]:
    results, env = figures.results, figures.results["environment"]
    lines = [f"## {env['devices']}, plan `{results['plan']}`", "", *environment.record_lines(results)]
    if data := results.get("data"):
        counts = "; ".join(
            f"{split} " + ", ".join(f"{count:,} {task}" for task, count in tasks.items())
            for split, tasks in data["counts"].items()
        )
        prepared = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in data["prepare_seconds"].items())
        lines.append(
            f"- {data['kind']} pictures, {data['fraction']:g} of the full set ({counts}), "
            f"{data['mean_file_bytes'] / 1000:.1f} kB a file; `facefeat prepare`: {prepared}"
        )
    busy = max((case["busy_cores"] for case in results["cases"] if "busy_cores" in case), default=0.0)
    if busy > _BUSY:
        lines.append(
            f"- **not a quiet machine**: between cases, other programs kept up to {busy:.1f} of {env['cores']} cores "
            "busy, which slows some sides more than others; use these times only to check that everything works"
        )
    absent = [f"{side['title']} ({side['absent']})" for side in results["sides"].values() if side["absent"]]
    if absent:
        lines.append(f"- not installed: {', '.join(absent)}")
    for part in (_matmul, _steps, _forward, _rates, _job, _start, _memory):
        lines += part(figures)
    return lines


def _titled(figures: Figures, name: str, entry: dict[str, Any]) -> str:
    """Returns an entry's title: that of its side, and what sets it apart from others of the side."""
    title = figures.results["sides"].get(entry["side"], {}).get("title", entry["side"])
    _, comma, rest = name.partition(",")
    return title + comma + rest


def _entries(figures: Figures, case: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for name, entry in case.get("entries", {}).items():
        yield name, _titled(figures, name, entry), entry


def _number(value: Spread | None, digits: int = 3) -> str:
    if value is None:
        return ""
    median, low, high = (_significant(number, digits) for number in value[:3])
    return median if value.n == 1 else f"{median} ({low} to {high})"


def _significant(number: float, digits: int = 3) -> str:
    return f"{number:,.0f}" if abs(number) >= 10**digits else f"{number:.{digits}g}"


def _section(title: str, about: str, header: Sequence[str], rows: Sequence[Sequence[object]], texts: int) -> list[str]:
    """Returns a heading, a sentence and a table; nothing where it would be empty."""
    return ["", f"### {title}", "", *([about, ""] if about else []), *table(header, rows, texts)] if rows else []


def _gone(figures: Figures, case: dict[str, Any], name: str = "") -> str:
    return f"not measured: {figures.why_not(case['name'], name) or 'no rounds'}"


def _matmul(figures: Figures) -> list[str]:
    rows = []
    for case in figures.cases("matmul"):
        for name, title, entry in _entries(figures, case):
            found = figures.tflops(case["name"], name)
            size, precision = case["settings"]["size"], case["settings"]["precision"]
            rows.append([precision, size, title, _number(found) if entry["rounds"] else _gone(figures, case, name)])
    return _section("A large matrix product", "", ["precision", "size", "side", "TFLOP/s"], rows, 3)


def _steps(figures: Figures) -> list[str]:
    header = ["trained", "precision", "batch", "side", "images/s", "ours against it"]
    header += ["TFLOP/s", "of the product's", "first call less a later one", "memory of the device"]
    return _section(
        "Training step",
        "The batch is already on the device. Operations are counted from the mathematics, the same for all sides.",
        header,
        [
            [_TRAINED[case["settings"]["trainable"]], *cells]
            for case in figures.cases("step")
            for cells in _computed(figures, case)
        ],
        4,
    )


def _forward(figures: Figures) -> list[str]:
    header = ["precision", "batch", "side", "images/s", "ours against it", "TFLOP/s", "of the product's"]
    header += ["first call less a later one", "memory of the device"]
    rows = [cells for case in figures.cases("forward") for cells in _computed(figures, case)]
    return _section("Forward", "The batch is already on the device.", header, rows, 3)


def _computed(figures: Figures, case: dict[str, Any]) -> Iterable[list[str]]:
    settings = case["settings"]
    for name, title, entry in _entries(figures, case):
        cells = [settings["precision"], str(settings["batch"]), title]
        if not entry["rounds"]:
            yield [*cells, _gone(figures, case, name), *[""] * 5]
            continue
        ratio = figures.rate_ratio(case["name"], "ours", name) if name != "ours" else None
        done, peak = figures.tflops(case["name"], name), figures.peak_tflops(settings["precision"])
        share = f"{done.median / peak:.0%}" if done and peak else ""
        memory = (entry.get("after") or {}).get("device_peak_bytes")
        yield [
            *cells,
            _number(spread(figures.rates(case["name"], name))),
            f"{_number(ratio)}×" if ratio else "",
            _number(done),
            share,
            f"{entry['about']['compile_seconds']:.1f} s",
            format_size(memory) if memory else "",
        ]


def _rates(figures: Figures) -> list[str]:
    lines = []
    for stage, (heading, about) in _RATES.items():
        rows = []
        for case in figures.cases(stage):
            for name, title, entry in _entries(figures, case):
                ratio = figures.rate_ratio(case["name"], "ours", name) if name != "ours" else None
                given = entry.get("about", {})
                hands = f"{given['workers']} workers" if "workers" in given else ""
                if entry["side"] == "ours" and "threads" in given:
                    hands = f"{given['threads']} threads"
                rate = _number(spread(figures.rates(case["name"], name))) if entry["rounds"] else ""
                shown = rate or _gone(figures, case, name)
                rows.append([title, hands, shown, f"{_number(ratio)}×" if ratio else ""])
        lines += _section(heading, about, ["side", "", "images/s", "ours against it"], rows, 2)
    return lines


def _job(figures: Figures) -> list[str]:
    rows = []
    for case in figures.cases("job"):
        what = _JOBS[case["name"].partition("/")[2]]
        own = figures.job_seconds(case["name"], "ours")
        for name, title, entry in _entries(figures, case):
            if recipe := entry["settings"].get("recipe"):
                title = f"{figures.results['sides']['ours']['title']}, recipe `{recipe}`"
            seconds = figures.job_seconds(case["name"], name)
            if not seconds:
                rows.append([what, title, _gone(figures, case, name), "", "", "", "", ""])
                continue
            prepare = figures.prepare_seconds() if entry["side"] == "ours" else 0.0
            whole = [one["wall_seconds"] for one in entry["rounds"]]
            images = [one["images"] / one["wall_seconds"] for one in entry["rounds"]]
            compiling = [one["compile_seconds"] for one in entry["rounds"] if "compile_seconds" in one]
            ratio = spread([theirs / ours for theirs, ours in zip(seconds, own, strict=False)]) if own else None
            one = entry["rounds"][0]
            extent = f"{one['epochs']} of {figures.epochs(case['name'])} epochs"
            extent += f", {one['share']:g} of the pictures" if one.get("share", 1) < 1 else ""
            rows.append(
                [
                    what,
                    title,
                    f"{_number(spread(seconds))} s"
                    + (" (reckoned)" if figures.is_reckoned(case["name"], name) else ""),
                    f"{_number(ratio)}×" if ratio and name != "ours" else "",
                    f"{prepare:.1f} s" if prepare else "",
                    f"{_number(spread(whole))} s ({extent})",
                    _number(spread(images)),
                    f"{_number(spread(compiling))} s" if compiling else "",
                ]
            )
    header = ["trained", "side", "files to table", "times ours", "`prepare`", "measured process"]
    header += ["images/s of it", "compiling in it"]
    about = (
        "Each job is a new process with empty caches; the picture files are in the page cache. *Files to table* is "
        "`facefeat prepare` plus the process. *Reckoned* means that the epochs it did not run were added at the speed "
        "of those it did. Several programs compile at once, beside other work; the table sums their compile times."
    )
    return _section("Whole job", about, header, rows, 2)


def _start(figures: Figures) -> list[str]:
    rows = []
    for case in figures.cases("start"):
        for name, _, entry in _entries(figures, case):
            label = f"{case['name'].partition('/')[2]}, {name}"
            if not entry["rounds"]:
                rows.append([label, _gone(figures, case, name), "", "", "", ""])
                continue
            kinds = ("wall_seconds", "compile_seconds", "trace_seconds", "lower_seconds")
            cells = [f"{_number(spread([one[kind] for one in entry['rounds']]))} s" for kind in kinds]
            timings = entry["rounds"][-1].get("timings", {})
            phases = [f"{what} {seconds:.1f} s" for what, seconds in timings.items() if isinstance(seconds, float)]
            rows.append([label, *cells, ", ".join(phases)])
    header = ["recipe, start", "whole process", "compiling, or reading the cache", "tracing", "lowering", "phases"]
    about = "A short run in two new processes, one after the other, with the same cache. Nested traces count twice."
    return _section("First and second start", about, header, rows, 1)


def _memory(figures: Figures) -> list[str]:
    rows = []
    for case in figures.cases("memory"):
        for name, _, entry in _entries(figures, case):
            held = spread([one["feed_anonymous_bytes"] / 2**20 for one in entry["rounds"]])
            rows.append([name, f"{_number(held)} MiB" if held else _gone(figures, case, name)])
    about = "Peak anonymous memory (without file pages) of a process that only takes batches from the feed."
    return _section("Host memory of the feed", about, ["prepared", "held"], rows, 1)
