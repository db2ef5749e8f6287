"""Which picture files a benchmark is about: the same ones for every side, and needed by none but the benchmark."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facefeat_jax.data.builders import builder_class
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.sources import open_source
from facefeat_jax.runs.run_folder import write_json

SOURCES = ("fairface", "glasses", "apparel")
SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")

Labelled = list[tuple[str, int]]  # path of the file, class number


@dataclass(frozen=True)
class Listing:
    """The pictures by split and task, in the order of the prepared records."""

    pictures: dict[str, dict[str, Labelled]]  # `{split: {task: [(file, class number), ...]}}`

    def files(self, split: str) -> list[Path]:
        """Returns the files of all tasks of a split, those of the tasks interleaved as far as they go."""
        columns = list(self.pictures[split].values())
        longest = max(map(len, columns))
        ordered = [column[n * len(column) // longest] for n in range(longest) for column in columns]
        return list(dict.fromkeys(Path(file) for file, _ in ordered))

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns how many there are by split and task."""
        return {split: {task: len(of) for task, of in tasks.items()} for split, tasks in self.pictures.items()}


def write_fairface_table(folder: Path, split: str, rows: Iterable[Sequence[str]]) -> None:
    """Writes a split's table in FairFace's layout; rows are file, age, gender and race."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"fairface_label_{split}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "age", "gender", "race", "service_test"))
        writer.writerows((*row, "False") for row in rows)


def write_listing(path: Path, downloads: Path, data_dir: Path) -> Listing:
    """Lists what was prepared from the downloads: the files as downloaded, with the labels of the prepared records."""
    pictures: dict[str, dict[str, Labelled]] = {split: {} for split in SPLITS}
    for name in SOURCES:
        builder, folder = builder_class(name), downloads / name
        root = folder / builder.selected(open_source(builder.SOURCE, folder), folder).root
        for split in SPLITS:
            opened = open_split(name, split, data_dir)
            for task, labels in opened.labels.items():
                files = [str(root / file) for file in opened.source_files]
                pictures[split][task] = list(zip(files, labels.tolist(), strict=True))
    write_json(path, pictures)
    return Listing(pictures)


def read_listing(path: Path) -> Listing:
    """Reads what `write_listing` wrote."""
    return Listing(json.loads(path.read_text(encoding="utf-8")))
