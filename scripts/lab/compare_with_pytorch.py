"""Compares this project with its PyTorch baseline; needs the extra `compare` (torch, torchvision).

    python scripts/compare_with_pytorch.py exact
    python scripts/compare_with_pytorch.py train --data-dir DIR

`exact` proves that both are the same algorithm: 48 steps from the same weights on the same made-up pictures, in
float64, where every number must agree to 1e-9. `train` does the whole job on prepared data sets in both and sets
accuracies and losses side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from common import run_command_line
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import run_and_exit
from parity.job import SIDES, Job


@dataclass(frozen=True)
class Exact:
    """Trains both sides on made-up pictures and prints the largest relative difference of each kind of number.

    Losses, weights, BatchNorm statistics, Adam's moments, and the counters of both. Exits with 1 if float64 differs by
    more than 1e-9 anywhere. float32 is run too and only reported: both sides drift apart by rounding.
    """

    image_size: int = 64
    """Side of the pictures in pixels."""
    batch_size: int = 16
    """Pictures per step; the last batch of each task's pass holds fewer."""
    steps: int = 8
    """Steps of each pass."""
    epochs: int = 2
    """How often the three passes are repeated."""
    trainable: Literal["layer4", "all"] = "layer4"
    """What is trained beside the heads: `layer4` is the notebook's rule, `all` freezes nothing."""
    seed: int = 0
    """Of weights, pictures and order."""
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    """What to compute in, one after the other."""

    def run(self) -> int:
        """Prints the tables; returns the exit code."""
        from weights_conversion._with_torch import require_torch

        require_torch()
        from parity.cases import Case
        from parity.exact import TOLERANCE, compare_training

        if min(self.steps, self.epochs) < 1 or self.image_size < 32 or self.batch_size < 4:
            raise UserError("--image-size must be 32 or more, --batch-size 4 or more, --steps and --epochs 1 or more")
        short = tuple(max(2, self.batch_size * part // 16) for part in (9, 5, 12))
        case = Case(self.image_size, self.batch_size, self.steps, short, self.epochs, (self.trainable,), seed=self.seed)
        print(f"{case.num_steps} steps, {case.image_size} px, batch {case.batch_size}, last ones {short}", flush=True)
        equal = True
        for dtype in self.dtypes:
            agrees, text = compare_training(case, dtype)
            print(text, flush=True)
            if dtype == "float64":
                equal = agrees
                print(f"float64: {'equal' if equal else 'NOT EQUAL'} within {TOLERANCE}", flush=True)
        return 0 if equal else 1


@dataclass(frozen=True)
class Train(Job):
    """Trains both sides on prepared data sets (`facefeat prepare`) by the baseline's rules and compares the results.

    Both start from the same weights and take the same batches. A side that is done is not trained again: its figures
    are read from the folder, so that the sides can be run one by one.
    """

    side: Literal["jax", "torch", "both"] = "both"
    """Which side to train now."""

    def run(self) -> int:
        """Trains, prints the table and writes it."""
        from facefeat_jax.runs.run_folder import write_file, write_json
        from parity import whole_job
        from parity.whole_job_report import report

        job = Job(**{field.name: getattr(self, field.name) for field in fields(Job)})
        results = whole_job.run(job, SIDES if self.side == "both" else (self.side,))
        text = report(results)
        write_json(self.out / "comparison.json", results)
        write_file(self.out / "comparison.md", text.encode())
        print(text)
        print(f"written: {self.out / 'comparison.md'}, {self.out / 'comparison.json'}")
        return 0


if __name__ == "__main__":
    run_and_exit(lambda: run_command_line(Exact | Train, __doc__))
