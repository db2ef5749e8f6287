"""The figures to reach, and what was measured of each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarking.figures import Figures
from benchmarking.turns import Spread, paired_ratios, spread
from facefeat_jax.system import markdown
from facefeat_jax.system.text import format_size


@dataclass(frozen=True)
class Found:
    """What was measured."""

    value: Spread  # in the target's unit
    how: str = ""  # the numbers behind it


@dataclass(frozen=True)
class Target:
    """A figure to reach."""

    what: str  # what is compared
    where: str  # where it has to be reached
    device: Literal["cpu", "gpu"]  # what it is computed on there
    required: float  # the least, or the most
    find: Callable[[Figures], Found | None]  # looks for it in the results of one run
    kind: Literal["at least", "at most"] = "at least"  # which of the two
    unit: str = "×"  # what stands behind the numbers


def _rates(case: str, ours: str, theirs: Sequence[str]) -> Callable[[Figures], Found | None]:
    """Compares pictures per second with the fastest of `theirs`."""

    def find(figures: Figures) -> Found | None:
        own = spread(figures.rates(case, ours))
        others = {name: found for name in theirs if (found := spread(figures.rates(case, name)))}
        if own is None or not others:
            return None
        best = max(others, key=lambda name: others[name].median)
        ratio = figures.rate_ratio(case, ours, best)
        assert ratio is not None
        return Found(ratio, f"{own.median:.3g} against {others[best].median:.3g} images/s")

    return find


def _best_batch(trainable: str) -> Callable[[Figures], Found | None]:
    """Compares pictures per second in bf16, each side at its own best batch size."""

    def find(figures: Figures) -> Found | None:
        best: dict[str, tuple[Spread, str]] = {}
        for case in figures.cases("step"):
            if case["name"].startswith(f"step/{trainable}/bf16/"):
                for name in ("ours", "compiled"):
                    found = spread(figures.rates(case["name"], name))
                    if found and (name not in best or found.median > best[name][0].median):
                        best[name] = found, case["name"]
        if len(best) < 2:
            return None
        (own, own_case), (other, other_case) = best["ours"], best["compiled"]
        ratios = paired_ratios(figures.rates(own_case, "ours"), figures.rates(other_case, "compiled"))
        batches = [case.rpartition("/")[2] for case in (own_case, other_case)]
        value = spread(ratios)
        assert value is not None
        return Found(
            value, f"{own.median:.4g} images/s at batch {batches[0]} against {other.median:.4g} at batch {batches[1]}"
        )

    return find


def _job(case: str, theirs: Sequence[str], *, full_size: bool = False) -> Callable[[Figures], Found | None]:
    """Compares the seconds of the whole job with those of the fastest of `theirs`."""

    def find(figures: Figures) -> Found | None:
        own = figures.job_seconds(case, "ours")
        others = {name: seconds for name in theirs if (seconds := figures.job_seconds(case, name))}
        if not own or not others or (full_size and not _is_full_size(figures)):
            return None
        name = min(others, key=lambda name: spread(others[name]))  # type: ignore[arg-type, return-value]
        ratio, mine, best = spread(paired_ratios(others[name], own)), spread(own), spread(others[name])
        assert ratio and mine and best
        reckoned = " (reckoned)" if figures.is_reckoned(case, name) else ""
        return Found(
            ratio,
            f"{mine.median:.1f} s, {figures.prepare_seconds():.1f} s of them `prepare`, against "
            f"{best.median:.1f} s{reckoned}",
        )

    return find


def _is_full_size(figures: Figures) -> bool:
    data = figures.results.get("data", {})
    return data.get("kind") == "synthetic" and data.get("fraction", 0) >= 1


def _cold_start(figures: Figures) -> Found | None:
    seconds = spread(figures.job_seconds("job/layer4", "ours"))
    if seconds is None or not _is_full_size(figures):
        return None
    return Found(seconds, f"{figures.prepare_seconds():.1f} s of them `prepare`")


def _memory(figures: Figures) -> Found | None:
    few, many = (
        [one["feed_anonymous_bytes"] for one in entry["rounds"]] if entry else []
        for entry in (figures.entry("memory", f"{count} pictures") for count in ("1,000", "100,000"))
    )
    value = spread([above / below for above, below in zip(many, few, strict=False)])
    if value is None:
        return None
    return Found(value, f"{format_size(max(few))} with 1,000, {format_size(max(many))} with 100,000")


def _second_start(figures: Figures) -> Found | None:
    first, second = (figures.entry("start/fast", name) for name in ("first", "second"))
    if first is None or second is None:
        return None
    pairs = list(zip(first["rounds"], second["rounds"], strict=False))
    value = spread([after["compile_seconds"] / before["compile_seconds"] for before, after in pairs])
    if value is None:
        return None
    told = []
    for what, kind in (("compile part", "compile_seconds"), ("whole process", "wall_seconds")):
        before, after = (statistics.median(one[kind] for one in entry["rounds"]) for entry in (first, second))
        told.append(f"{what} {before:.1f} s, then {after:.1f} s")
    return Found(value, "; ".join(told))


def _targets() -> Iterator[Target]:
    """Yields the figures to reach."""
    two, cpu, gpu = ("2 CPU cores", "cpu"), ("CPU", "cpu"), ("GPU", "gpu")
    layouts = "against the faster of PyTorch's layouts"
    fastest = "bf16, best batch size, against torch.compile + AMP + channels_last"
    written = _job("job/layer4", ["pytorch"])
    yield Target("baseline-sized job, files to table, `fast` against PyTorch as written", *two, 2.0, written)
    yield Target("the same, heads only on both sides", *two, 5.0, _job("job/heads", ["pytorch"]))
    for part, least, trained in (("layer4", 1.0, "layer4 and heads trained"), ("all", 0.8, "all trained")):
        step = _rates(f"step/{part}/float32/32", "ours", ["tuned"])
        yield Target(f"step, {trained}, batch 32, float32, against PyTorch channels_last", *cpu, least, step)
    for batch in (32, 1):
        rates = _rates(f"forward/float32/{batch}", "ours", ["pytorch", "tuned"])
        yield Target(f"forward, batch {batch}, {layouts}", *cpu, 1.0, rates)
    full = _job("job/layer4", ["pytorch"], full_size=True)
    yield Target("baseline-sized job against PyTorch as written", *gpu, 20.0, full)
    what = "baseline-sized job against PyTorch tuned (compiled or not, whichever is faster)"
    yield Target(what, *gpu, 1.5, _job("job/layer4", ["tuned", "compiled"], full_size=True))
    yield Target("baseline-sized job, cold start, from files", *gpu, 30.0, _cold_start, "at most", " s")
    for part, trained in (("layer4", "layer4 and heads trained"), ("all", "all trained")):
        yield Target(f"step, {trained}, {fastest}", *gpu, 1.2, _best_batch(part))
    what = "host memory of the feed alone (anonymous), 100,000 pictures against 1,000"
    yield Target(what, *cpu, 1.1, _memory, "at most")
    for place in (cpu, gpu):
        yield Target("second start, compile part, of the first's", *place, 0.2, _second_start, "at most")


def table(runs: Iterable[Figures]) -> list[str]:
    """Returns the table of the figures to reach as lines of Markdown; where several runs have one, the last counts.

    Rehearsals don't count, nor do runs with several CPU devices: the commands use one.
    """
    counted = [
        figures
        for figures in runs
        if figures.results["plan"] != "quick"
        and "JAX_NUM_CPU_DEVICES" not in figures.results["environment"].get("variables", {})
    ]
    rows = []
    for target in _targets():
        required = f"{target.kind} {target.required:g}{target.unit}"
        found = None
        for figures in counted:
            if figures.device == target.device:
                found = target.find(figures) or found
        if found is None:
            rows.append([target.what, target.where, required, "not measured", "", ""])
            continue
        value, shown = found.value, verdict(target, found.value)
        # More digits where rounding would contradict the verdict.
        digits = 4 if round(value.median, 2) == target.required and shown != "reached" else 2
        measured = f"{value.median:.{digits}f}{target.unit}"
        if value.n > 1:
            measured += f" ({value.low:.2f} to {value.high:.2f})"
        rows.append([target.what, target.where, required, measured, shown, found.how])
    header = ["what", "where", "required", "measured", "verdict", "how"]
    return markdown.table(header, rows, len(header))


def verdict(target: Target, value: Spread) -> str:
    """Returns whether the median reaches what is required, and if not, by how much it is short."""
    short = target.required / value.median if target.kind == "at least" else value.median / target.required
    return "reached" if short <= 1 else f"**not reached**, by a factor of {short:.3f}"
