"""What `scripts/benchmark.py run` is told."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarking.processes import Side


@dataclass(frozen=True)
class RunArguments:
    """Times every stage from picture files to the results table, and all of it together."""

    out: Path = Path("runs/benchmark")
    """A new folder for results.json and report.md."""
    work: Path | None = None
    """Folder for pictures, caches and logs; the default is work/ in the other."""
    plan: str | None = None
    """How much is measured: `cpu` (about 25 minutes on two cores), `cpu-job` (the same, but of whole jobs one round, in
    which PyTorch does one epoch and the rest is reckoned: for many pictures), `gpu` (about 10 minutes) or `quick` (a
    minute or two, to see that all of it works); the default is what there is to compute on."""
    stages: tuple[str, ...] = ()
    """Only these: matmul, decode, feed, step, forward, validation, start, job, memory."""
    cases: tuple[str, ...] = ()
    """Only these of them, by their names or what they begin with: job/heads, step/layer4/, ..."""
    downloads: Path | None = None
    """Folder with fairface/, glasses/ and apparel/, each as `facefeat prepare` takes it; the default is to make
    pictures."""
    synthetic: float | None = None
    """Make this fraction of the full size in pictures (1: 41,796 + 4,920 + 6,955)."""
    fraction: float | None = None
    """Use only this fraction of the downloads."""
    budget: float | None = None
    """Seconds after which no further case is begun."""
    keep: bool = False
    """Leave pictures and caches where they are."""
    commit: str = ""
    """The commit that is measured, where the code has no git folder beside it."""
    json: bool = False
    """Print the results as JSON; the default is to print the tables."""

    def measure(self, program: str, others: Sequence[Side]) -> int:
        """Runs the benchmark, prints what was found, and writes it.

        Args:
          program: how the command line began that was typed.
          others: the sides beside ours.
        """
        from benchmarking.report import report
        from benchmarking.run import OURS, RESULTS, Request, run, typed_command
        from facefeat_jax.runs.run_folder import write_file
        from facefeat_jax.system.errors import UserError
        from facefeat_jax.system.progress import say

        if self.downloads is not None and self.synthetic is not None:
            raise UserError("--downloads uses pictures that are there, --synthetic makes some; give one of them")
        if self.downloads is None and self.fraction is not None:
            raise UserError("--fraction is of --downloads; for made pictures say --synthetic FRACTION")
        request = Request(
            out=self.out,
            work=self.work,
            plan=self.plan,
            stages=self.stages,
            cases=self.cases,
            downloads=self.downloads,
            fraction=self.fraction if self.synthetic is None else self.synthetic,
            budget=self.budget,
            keep=self.keep,
            commit=self.commit,
            command=typed_command(program),
        )
        results = run(request, [OURS, *others])
        text = report([results])
        write_file(self.out / "report.md", text.encode())
        if self.json:
            json_module.dump(results, sys.stdout, indent=2)
            print()
        else:
            print(text)
        say(f"results: {self.out / RESULTS}")
        say(f"report:  {self.out / 'report.md'}")
        return 0
