"""Reading figures out of what a benchmark wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarking.turns import Spread, paired_ratios, spread


class Figures:
    """The results of one run.

    Args:
      results: what `run` returned or `results.json` holds.

    Attributes:
      results: the same.
    """

    def __init__(self, results: dict[str, Any]):
        self.results = results
        self._cases = {case["name"]: case for case in results["cases"]}

    @property
    def device(self) -> str:
        """`cpu` or `gpu`."""
        return self.results["device"]

    def cases(self, stage: str) -> list[dict[str, Any]]:
        """Returns the cases of a stage, those that were skipped too."""
        return [case for case in self.results["cases"] if case["stage"] == stage]

    def entry(self, case: str, name: str) -> dict[str, Any] | None:
        """Returns an entry's record where it has rounds to show, else None."""
        found = self._cases.get(case, {}).get("entries", {}).get(name)
        return found if found and found["rounds"] else None

    def why_not(self, case: str, name: str) -> str:
        """Returns why `entry` is None: the side's own words, or nothing where it was not asked for."""
        found = self._cases.get(case, {})
        entry = found.get("entries", {}).get(name, {})
        return entry.get("error") or found.get("skipped") or ""

    def rates(self, case: str, name: str) -> list[float]:
        """Returns the pictures per second of each round."""
        entry = self.entry(case, name)
        return [one["images"] / one["seconds"] for one in entry["rounds"]] if entry else []

    def rate_ratio(self, case: str, ours: str, theirs: str) -> Spread | None:
        """Returns how many times as fast the one is as the other, round by round."""
        return spread(paired_ratios(self.rates(case, ours), self.rates(case, theirs)))

    def tflops(self, case: str, name: str) -> Spread | None:
        """Returns the arithmetic done per second, in units of 10^12, by the count of the mathematics."""
        entry = self.entry(case, name)
        if entry is None:
            return None
        if per_call := entry["about"].get("flops_per_call"):
            return spread([per_call * one["calls"] / one["seconds"] / 1e12 for one in entry["rounds"]])
        # Ours counts it; it is the same mathematics on every side, but where an entry has a count of its own.
        counts = [one.get("about", {}) for one in (entry, *self._cases[case]["entries"].values())]
        per_image = next((about["flops_per_image"] for about in counts if "flops_per_image" in about), None)
        return spread([rate * per_image / 1e12 for rate in self.rates(case, name)]) if per_image else None

    def peak_tflops(self, precision: str) -> float | None:
        """Returns what a large matrix product reached, the best side's median."""
        names = ("ours", "tuned")
        medians = [found.median for name in names if (found := self.tflops(f"matmul/{precision}", name))]
        return max(medians, default=None)

    def prepare_seconds(self) -> float:
        """Returns how long `facefeat prepare` took over all data sets."""
        return sum(self.results.get("data", {}).get("prepare_seconds", {}).values())

    def job_seconds(self, case: str, name: str) -> list[float]:
        """Returns how long each round's whole job took, from the start of its process.

        Ours begins with `facefeat prepare`, which the others don't need. Where a side did fewer epochs, or a share of
        each, the rest is reckoned from its later epochs (from the only one, where there is one).
        """
        entry = self.entry(case, name)
        if entry is None:
            return []
        if entry["side"] == "ours":
            return [one["wall_seconds"] + self.prepare_seconds() for one in entry["rounds"]]
        epochs = self.epochs(case)
        return [whole_job_seconds(one, epochs) for one in entry["rounds"]]

    def epochs(self, case: str) -> int:
        """Returns how many epochs the whole job has: those of ours."""
        done = [one["epochs"] for of in self._cases[case]["entries"].values() for one in of["rounds"]]
        return max(done)

    def is_reckoned(self, case: str, name: str) -> bool:
        """Returns whether a side did less than the whole job."""
        entry = self.entry(case, name)
        epochs = self.epochs(case)
        return entry is not None and any(one["epochs"] < epochs or one.get("share", 1) < 1 for one in entry["rounds"])


def whole_job_seconds(figures: dict[str, Any], epochs: int) -> float:
    """Returns the seconds of `epochs` whole epochs, given those of some epochs over a share of the pictures.

    Args:
      figures: `wall_seconds`, `epoch_seconds` (one number for each epoch that was done) and `share`.
      epochs: wanted.
    """
    done: Sequence[float] = figures["epoch_seconds"]
    later = done[1:] or done
    outside = figures["wall_seconds"] - sum(done)
    if len(done) >= epochs:
        return outside + sum(done[:epochs]) / figures["share"]
    missing = (epochs - len(done)) * sum(later) / len(later)
    return outside + (sum(done) + missing) / figures["share"]
