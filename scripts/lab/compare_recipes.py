"""Compares `best` with the baseline's rules on prepared data sets, ingredient by ingredient and over seeds.

    python scripts/lab/compare_recipes.py run --out runs/recipes
    python scripts/lab/compare_recipes.py report --out runs/recipes --to docs/benchmarks/recipes.md

`run` trains the rows that are not done yet, one after the other. It can be stopped at any time (Ctrl-C, SIGTERM) and
called again: finished rows are kept as JSON in `rows/`, an unfinished one goes on from its checkpoint. `report` makes
the tables of what is there, and says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common import run_command_line
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import run_and_exit


@dataclass(frozen=True)
class Run:
    """Trains the rows that are not done yet."""

    out: Path = Path("runs/recipes")
    """Folder of the rows; what was measured with other sizes or weights belongs into another one."""
    part: Literal["ablation", "seeds", "both"] = "both"
    """Which rows: each ingredient of `best` alone (one seed), or `best` and the baseline's rules over seeds."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; the default is $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    weights: str = "random"
    """What every row starts from: `random` (the same for the same seed), or a .pth or .safetensors file."""
    ablation_size: int = 32
    """Side of the ablation's pictures in pixels."""
    ablation_limit: int = 600
    """Pictures of each split of each set that the ablation takes."""
    ablation_epochs: int = 6
    """Passes of the ablation."""
    size: int = 64
    """Side of the pictures in pixels, over seeds."""
    epochs: int = 10
    """Passes, over seeds."""
    seeds: int = 3
    """How many."""
    only: tuple[str, ...] = ()
    """Names of rows; the default is all."""

    def run(self) -> int:
        """Trains; returns the exit code."""
        from facefeat_jax.data.dataset import default_data_dir
        from facefeat_jax.system.runtime import start_up
        from recipe_comparison.plan import Size, ablation, seeds
        from recipe_comparison.rows import run_row

        start_up()
        small = Size(self.ablation_size, self.ablation_epochs, self.ablation_limit)
        whole = Size(self.size, self.epochs, None)
        rows = [] if self.part == "seeds" else [(row, small) for row in ablation()]
        rows += [] if self.part == "ablation" else [(row, whole) for row in seeds(self.seeds)]
        if self.only:
            names = {row.name for row, _ in rows}
            if unknown := set(self.only) - names:
                raise UserError(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
            rows = [(row, size) for row, size in rows if row.name in self.only]
        for row, size in rows:
            found = run_row(row, size, self.weights, self.data_dir or default_data_dir(), self.out)
            figures = "  ".join(f"{task} {head['accuracy']:.3f}" for task, head in found["heads"].items())
            print(f"{row.key}: {figures}  ({found['seconds']:.0f} s)", flush=True)
        return 0


@dataclass(frozen=True)
class Report:
    """Makes the tables of the rows that are done."""

    out: Path = Path("runs/recipes")
    """Folder of the rows."""
    to: Path = Path("docs/benchmarks/recipes.md")
    """The page to write; the rows go beside it as JSON."""

    def run(self) -> int:
        """Writes the page; returns the exit code."""
        from recipe_comparison.report import read_rows, write_page

        write_page(read_rows(self.out), self.to)
        print(f"written: {self.to}, {self.to.with_suffix('.json')}")
        return 0


if __name__ == "__main__":
    run_and_exit(lambda: run_command_line(Run | Report, __doc__))
