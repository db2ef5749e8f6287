"""Flips labels on purpose, trains, and measures how many of them each ranking of the audit finds.

    python scripts/lab/measure_audit.py --run runs/flipped --seeds 3 --to docs/benchmarks/flipped_labels.md

It needs the three prepared data sets. For each seed, in both splits, a share of each head's labels becomes another
class; the run is trained and validated on these labels, as a user's would be. Then the pictures are ranked by the loss
and by confident learning (`facefeat_jax/evaluation/_confident_learning.py`), as `facefeat audit` does. The precision at
k is the share of flipped labels among the first k, where k is how many were flipped. Labels that were wrong before
count as misses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro

from common import write_results
from facefeat_jax.commands import train
from facefeat_jax.config import load_recipe
from facefeat_jax.data import examples as examples_module
from facefeat_jax.data.dataset import Split, default_data_dir, open_split
from facefeat_jax.data.selection import SplitName
from facefeat_jax.evaluation._confident_learning import confident_errors, ranks
from facefeat_jax.evaluation.evaluate import answers_on
from facefeat_jax.evaluation.metrics import losses, probabilities
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.runs.unseen import halves
from facefeat_jax.system.environment import record, record_lines
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.markdown import table

_PAGE = """\
# Flipped labels

How many wrong labels does `facefeat audit RUN` put first? In the real pictures (as in [the audit](audit.md)), {percent}
of each head's labels were changed to another class on purpose, in train and val. A model was trained on them
({trained}). Its pictures were then ranked by the loss, and by confident learning: confident errors
first, each by the margin of its label. {seeds}

{made}

*Precision* is the share of flipped labels among the first k of a ranking, where k is the number that was flipped; at
random it would be the share that was flipped. Labels that were wrong before count as misses, so 1 can't be reached.
*Confident errors* is how many labels confident learning marks, and the share of them that was flipped. Each figure is
the mean, with the lowest and the highest of the seeds in brackets.

{figures}

In train the model has been fitted to the wrong labels. For two classes both rankings go by the probability of the
label; they differ only in which pictures count as confident errors. For the eight colours the loss finds more, so the
audit lists labels by the loss and gives the other rank beside it.
"""


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    run: Path
    """Folder of the first run to train; those of other seeds get their number behind its name. One that is there is
    measured without training it again."""
    seeds: int = 1
    """How many runs, with seeds from 0."""
    share: float = 0.05
    """Share of labels to flip."""
    epochs: int = 4
    """Epochs of the recipe `avatars` on the three sets."""
    data_dir: Path | None = None
    """Where the prepared data sets lie; the default is $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    to: Path | None = None
    """The page to write; the figures go beside it as JSON."""


def flipped(split: Split, share: float, seed: int) -> tuple[Split, dict[str, np.ndarray]]:
    """Returns a split with a share of its labels changed to another class, and which they are, bool `[n]` by task."""
    random, labels, changed = np.random.RandomState(len(split) + seed), {}, {}
    for task, values in split.labels.items():
        known = np.flatnonzero(values >= 0)
        chosen = random.permutation(known)[: round(share * len(known))]
        number = len(split.classes[task])
        labels[task] = values.copy()
        labels[task][chosen] = (values[chosen] + random.randint(1, number, len(chosen))) % number
        changed[task] = np.isin(np.arange(len(split)), chosen)
    return dataclasses.replace(split, labels=labels), changed


def precision(rank: np.ndarray, was_flipped: np.ndarray) -> float:
    """Returns the share of flipped labels among the first k, of which k were flipped; `rank` counts from 1."""
    return float(was_flipped[rank <= was_flipped.sum()].mean())


def measure(arguments: Arguments, seed: int) -> dict[str, Any]:
    """Trains if needed, and returns the figures by split and head."""
    folder = arguments.run.with_name(arguments.run.name + (str(seed) if seed else ""))
    data_dir = arguments.data_dir or default_data_dir()
    were_flipped: dict[str, dict[str, np.ndarray]] = {}

    def opened(source: str, split: SplitName, place: Path) -> Split:
        made, changed = flipped(open_split(source, split, place), arguments.share, seed)
        for task, values in changed.items():
            names = np.array([f"{source}/{split}: {file}" for file in made.source_files])
            were_flipped.setdefault(task, {}).update({str(name): values[at] for at, name in enumerate(names)})
        return made

    examples_module.open_split = opened
    sources = ("fairface", "glasses", "apparel")
    if not folder.exists():
        recipe = load_recipe("avatars").replace(seed=seed, epochs=arguments.epochs)
        train(recipe.replace(run=folder, sources=sources, data_dir=data_dir))
    run = open_run(folder)
    train_part, val_part, _ = halves(run, data_dir)
    found: dict[str, Any] = {}
    for split, part in zip(get_args(SplitName), (train_part, val_part), strict=True):
        answers = answers_on(run, part, batch_size=run.config.batches.batch_size, title=f"evaluating {split}")
        for task in answers.classes:
            logits, labels = answers.labelled(task)
            names = answers.names[answers.labels[task] >= 0]
            truly = np.array([were_flipped[task][str(name)] for name in names])
            every = probabilities(logits)
            by_loss = np.argsort(np.argsort(-losses(logits, labels), kind="stable")) + 1
            confident = confident_errors(every, labels)
            found.setdefault(split, {})[task] = {
                "pictures": len(labels),
                "flipped": int(truly.sum()),
                "by_loss": precision(by_loss, truly),
                "by_confident_learning": precision(ranks(every, labels), truly),
                "confident": int(confident.sum()),
                "confident_flipped": float(truly[confident].mean()) if confident.any() else None,
            }
    config = run.config
    trained = f"{config.model.trunk}, {config.data.image_size} px, {config.batches.epochs} epochs, random weights"
    return {"seed": seed, "trained": trained, "splits": found}


def page(results: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    rows = []
    runs = [run["splits"] for run in results["runs"]]
    for split, heads in runs[0].items():
        for task, one in heads.items():
            figures = [one["pictures"], one["flipped"], f"{one['flipped'] / one['pictures']:.3f}"]
            for name in ("by_loss", "by_confident_learning", "confident", "confident_flipped"):
                figures.append(_spread([run[split][task][name] for run in runs]))
            rows.append([split, task, *figures])
    header = ["split", "head", "pictures", "flipped", "at random", "precision by loss", "by confident learning"]
    header += ["confident errors", "flipped of them"]
    return _PAGE.format(
        percent=f"{results['share']:.0%}",
        trained=results["runs"][0]["trained"],
        seeds="This is one run."
        if len(runs) == 1
        else f"This was done {len(runs)} times, with other labels and first weights.",
        made="\n".join(record_lines(results)),
        figures="\n".join(table(header, rows, 2)),
    )


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    form = "{:.0f}" if isinstance(known[0], int) else "{:.3f}"
    mean, low, high = (form.format(one) for one in (sum(known) / len(known), min(known), max(known)))
    return mean if low == high else f"{mean} ({low} to {high})"


def main() -> int:
    """Measures, prints and writes the figures."""
    arguments = tyro.cli(Arguments, description=__doc__)
    command = f"python scripts/lab/measure_audit.py --run {arguments.run.name} --seeds {arguments.seeds}"
    command += " --to docs/benchmarks/flipped_labels.md"
    found = [measure(arguments, seed) for seed in range(arguments.seeds)]
    results = {"share": arguments.share, "runs": found}
    results |= record(command, ("jax", "flax", "numpy", "pillow"))
    print(page(results))
    write_results(page(results), results, arguments.to)
    return 0


if __name__ == "__main__":
    run_and_exit(main)
