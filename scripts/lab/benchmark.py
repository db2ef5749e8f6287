"""Measures this project beside PyTorch, stage by stage, and makes the tables; needs the extra `compare`.

    python scripts/benchmark.py run --out runs/benchmark --downloads DIR
    python scripts/benchmark.py report runs/benchmark/results.json
    python scripts/benchmark.py pack --downloads DIR --out ELSEWHERE

`run` lets the sides take turns: this project, PyTorch as the notebook wrote it, PyTorch tuned, and tuned with
torch.compile. Without torch it measures this project alone, as `facefeat benchmark` does. `report` makes Markdown of
what one or more runs found. `pack` makes a small copy of downloaded pictures to carry to another machine.
"""

from __future__ import annotations

import importlib.util
import json as json_module
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarking.processes import Side
from benchmarking.request import RESULTS, Request
from common import run_command_line, write_page
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import format_size


def pytorch_sides() -> list[Side]:
    """Returns the three sides of PyTorch's."""
    missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    absent = f"{' and '.join(missing)} not installed" if missing else ""

    def side(name: str, title: str, **settings: object) -> Side:
        return Side(
            name=name,
            title=title,
            module="pytorch_baseline.benchmark_side",
            packages=("torch", "torchvision", "triton", "numpy", "pillow"),
            settings=settings,
            absent=absent,
        )

    return [
        side("pytorch", "PyTorch as written", mode="written"),
        side("tuned", "PyTorch tuned", mode="tuned"),
        side("compiled", "PyTorch tuned and compiled", mode="tuned", compile=True),
    ]


@dataclass(frozen=True)
class Run(Request):
    """Measures the sides in turn and writes results.json and report.md."""

    def run(self) -> int:
        from benchmarking.report import report
        from benchmarking.run import OURS, run

        results = run(self, [OURS, *pytorch_sides()])
        lines = report([results])
        write_page(lines, self.out / "report.md")
        print(json_module.dumps(results, indent=2) if self.json else "\n".join(lines))
        say(f"results: {self.out / RESULTS}")
        say(f"report:  {self.out / 'report.md'}")
        return 0


@dataclass(frozen=True)
class Report:
    """Makes Markdown tables of the results of one or more runs."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """The results.json files; where several measured the same, the last counts."""
    out: Path | None = None
    """File to write; the default is standard output."""

    def run(self) -> int:
        from benchmarking.report import read, report

        if not self.results:
            raise UserError("name the results: python scripts/benchmark.py report results.json")
        write_page(report([read(path) for path in self.results]), self.out)
        return 0


@dataclass(frozen=True)
class Pack:
    """Copies an even part of downloaded pictures, in the downloads' own layout."""

    downloads: Path
    """Folder with fairface/, glasses/ and apparel/, each as `facefeat prepare` takes it."""
    out: Path
    """A new folder, where git doesn't take it into a project."""
    max_mib: float = 34.0
    """The most that the pictures may be together."""

    def run(self) -> int:
        from benchmarking.subset import write_subset

        count, size = write_subset(self.downloads, self.out, max_bytes=int(self.max_mib * 2**20))
        print(f"{self.out}: {count:,} pictures, {format_size(size)}")
        return 0


if __name__ == "__main__":
    run_and_exit(lambda: run_command_line(Run | Report | Pack, __doc__))
