"""The folder that a benchmark works in: the pictures as downloaded and as prepared, caches, logs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarking.pictures import SOURCES, write_listing
from benchmarking.processes import SideError, run_command
from benchmarking.subset import write_subset
from benchmarking.synthetic import write_downloads, write_faces
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say

_PREPARE_SECONDS = 3600
# Real ones may not be at hand, and jobs take as long with any: random numbers in a file as torchvision's.
_WRITE_WEIGHTS = """import sys, facefeat_jax, weights_conversion
trunk = facefeat_jax.create_model("resnet18", tasks=["gender"]).trunk
weights_conversion.write(sys.argv[1], weights_conversion.to_torch(trunk))
"""


@dataclass(frozen=True)
class Workplace:
    """Where things lie."""

    folder: Path  # all of it is made by the benchmark, and removed at its end unless it is to be kept

    @property
    def downloads(self) -> Path:
        """The three data sets' files, laid out as they are downloaded."""
        return self.folder / "downloads"

    @property
    def data(self) -> Path:
        """The same prepared by `facefeat prepare`."""
        return self.folder / "data"

    @property
    def listing(self) -> Path:
        """Which files were prepared, for sides that don't read records."""
        return self.folder / "listing.json"

    @property
    def weights(self) -> Path:
        """What jobs start from: a trunk's weights with torchvision's names."""
        return self.folder / "trunk.pth"

    @property
    def log(self) -> Path:
        """What workers say on standard error."""
        return self.folder / "workers.log"

    def faces(self, count: int) -> Path:
        """A prepared set of that many small pictures to train on."""
        return self.folder / f"faces-{count}"

    def make(self) -> None:
        """Makes the folder.

        Raises:
          UserError: it can't be made, or holds something already: what lies in it is deleted at the end.
        """
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(f"{self.folder} is not empty; give another --work or --out")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log.touch()
        except OSError as error:
            raise UserError(f"{self.folder} can't be made ({error.strerror}); give another --work or --out") from error

    def remove(self) -> None:
        """Deletes what was made, but for the log and the listing."""
        self.weights.unlink(missing_ok=True)
        for path in (self.downloads, self.data, *(self.folder / name for name in ("caches", "rounds"))):
            shutil.rmtree(path, ignore_errors=True)
        for path in (*self.folder.glob("faces-*"), *self.folder.glob("made-*")):
            shutil.rmtree(path, ignore_errors=True)

    def fill(
        self, *, downloads: Path | None, fraction: float, made: Path | None = None, distinct: int | None = None
    ) -> dict[str, Any]:
        """Lays the pictures out and prepares them.

        Args:
          downloads: folder of the three downloads; None makes pictures.
          fraction: of them; of the full size where they are made.
          made: folder of pictures that are made, or were made by an earlier benchmark; None makes them in this place.
          distinct: how many of those that are made differ; None means all.

        Returns:
          What they are, and the seconds that each `facefeat prepare` took, from the start of its process to its end.

        Raises:
          UserError: the pictures can't be had or prepared.
        """
        started = time.perf_counter()
        if downloads is None:
            laid = made or self.downloads
            _make(laid, fraction, distinct)
        else:
            laid = self.downloads
            write_subset(downloads, laid, fraction=fraction)
        laid_out = time.perf_counter() - started
        seconds = {" ".join(SOURCES): self._prepare(SOURCES, laid, self.data)}
        listing = write_listing(self.listing, laid, self.data)
        sizes = [file.stat().st_size for split in ("train", "val") for file in listing.files(split)]
        return {
            "kind": "synthetic" if downloads is None else "real",
            "fraction": fraction,
            **({"distinct": distinct} if downloads is None and distinct else {}),
            "counts": listing.counts(),
            "mean_file_bytes": round(sum(sizes) / len(sizes)),
            "laid_out_seconds": laid_out,
            "prepare_seconds": seconds,
        }

    def fill_weights(self) -> None:
        """Writes the weights that jobs start from.

        Raises:
          UserError: they can't be made.
        """
        try:
            run_command(["-c", _WRITE_WEIGHTS, str(self.weights)], {}, self.log, timeout=_PREPARE_SECONDS)
        except SideError as error:
            raise UserError(f"writing weights failed: {error}") from error

    def fill_faces(self, count: int, side: int) -> None:
        """Makes and prepares a set of `count` pictures to train on."""
        made = self.folder / f"made-{count}"
        write_faces(made, count, 8, side)
        self._prepare(("fairface",), made / "fairface", self.faces(count))
        shutil.rmtree(made)

    def _prepare(self, sources: Sequence[str], downloads: Path, data_dir: Path) -> float:
        # As a command: its start is part of what it costs.
        command = ["-m", "facefeat_jax.cli", "prepare", *sources, "--from", str(downloads), "--data-dir", str(data_dir)]
        try:
            return run_command([*command, "--overwrite", "--json"], {}, self.log, timeout=_PREPARE_SECONDS)[1]
        except SideError as error:
            raise UserError(f"preparing {', '.join(sources)} failed: {error}") from error


def _make(folder: Path, fraction: float, distinct: int | None) -> None:
    """Makes pictures, unless the same lie there already, all of them."""
    about = {"fraction": fraction, "distinct": distinct}
    mark = folder / "made.json"
    if mark.exists() and json.loads(mark.read_text()) == about:
        say(f"benchmark: the pictures in {folder} are used again")
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds other pictures, or only a part of them; give another --made")
    say(f"benchmark: making {fraction:g} of the full size in pictures")
    write_downloads(folder, fraction, distinct)
    mark.write_text(json.dumps(about))
