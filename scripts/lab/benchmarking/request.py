"""What `scripts/benchmark.py run` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarking.journal import ROUNDS
from facefeat_jax.system.errors import UserError

RESULTS = "results.json"


@dataclass(frozen=True)
class Request:
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
    made: Path | None = None
    """Folder of the pictures that are made: those that an earlier benchmark left there are used, and these are kept."""
    done: Path | None = None
    """The rounds.jsonl of an earlier benchmark: the cases that it finished are left out."""
    budget: float | None = None
    """Seconds after which no further case is begun, and no answer waited for."""
    keep: bool = False
    """Leave pictures and caches where they are."""
    commit: str = ""
    """The commit that is measured, where the code has no git folder beside it."""
    json: bool = False
    """Print the results as JSON; the default is to print the tables."""

    def check(self) -> None:
        """Raises UserError where options contradict each other, or name what is not there."""
        if self.downloads is not None and self.synthetic is not None:
            raise UserError("--downloads uses pictures that are there, --synthetic makes some; give one of them")
        if self.downloads is None and self.fraction is not None:
            raise UserError("--fraction is of --downloads; for made pictures say --synthetic FRACTION")
        if any((self.out / name).exists() for name in (RESULTS, ROUNDS)):
            raise UserError(f"{self.out} already holds results; give --out a new folder")
        if self.done is not None and not self.done.is_file():
            raise UserError(f"--done takes the {ROUNDS} of an earlier benchmark; {self.done} is no file")
        if self.made is not None and self.downloads is not None:
            raise UserError("--downloads uses pictures that are there, --made some that were made; give one of them")
        if self.downloads is not None and not self.downloads.is_dir():
            raise UserError(
                f"--downloads takes a folder with fairface/, glasses/ and apparel/; {self.downloads} is none"
            )

    def share(self, made: float) -> float:
        """Returns the fraction of the pictures to use; `made` is that of pictures that are made, if none is given."""
        if self.downloads is None:
            return made if self.synthetic is None else self.synthetic
        return 1.0 if self.fraction is None else self.fraction
