"""Runs fault campaigns and makes docs/reliability.md of what they counted.

python scripts/lab/run_faults.py run --out docs/benchmarks/faults
python scripts/lab/run_faults.py report docs/benchmarks/faults/*.json --out docs/reliability.md

With names of campaigns, `run` does these alone; the page is made of whatever lies there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from common import run_command_line, write_page
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.main import run_and_exit
from faults import report
from faults.campaigns import CAMPAIGNS, run_campaign


@dataclass(frozen=True)
class Run:
    """Runs campaigns, one after the other, and writes what each counted as JSON."""

    campaigns: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which; the default is all."""
    out: Path = Path("runs/faults")
    """Folder for NAME.json of each campaign."""
    count: int | None = None
    """How many faults of each; the default is the campaign's own number."""
    seed: int = 4
    """What the faults are drawn from."""
    keep: bool = False
    """Keep the folder that a campaign worked in, to look at."""

    def run(self) -> int:
        names = self.campaigns or tuple(CAMPAIGNS)
        for name in names:
            if name not in CAMPAIGNS:
                raise unknown("campaign", name, CAMPAIGNS)
        failed = False
        for name in names:
            result = run_campaign(name, self.out, count=self.count, seed=self.seed, keep=self.keep)
            print(report.line(result), flush=True)
            failed |= result["survived"] < result["tried"]
        return 1 if failed else 0


@dataclass(frozen=True)
class Report:
    """Makes Markdown of what one or more campaigns counted."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """The JSON files that `run` wrote."""
    out: Path | None = None
    """File to write; the default is standard output."""

    def run(self) -> int:
        if not self.results:
            raise UserError("name the results: python scripts/lab/run_faults.py report docs/benchmarks/faults/*.json")
        results = [report.read(path) for path in self.results]
        order = list(CAMPAIGNS)
        write_page(report.report(sorted(results, key=lambda one: order.index(one["campaign"]))), self.out)
        return 0


def main() -> int:
    """Runs the command line."""
    return run_command_line(Run | Report, __doc__)


if __name__ == "__main__":
    run_and_exit(main)
