"""Training one row, and its figures as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from facefeat_jax.commands import train
from facefeat_jax.evaluation._reliability import calibration_error
from facefeat_jax.evaluation.evaluate import answers_of_run
from facefeat_jax.evaluation.metrics import head_result, probabilities
from facefeat_jax.runs import checkpoints
from facefeat_jax.runs.run_folder import CONFIG, write_json
from facefeat_jax.system.environment import describe
from facefeat_jax.system.progress import say
from facefeat_jax.training.data import open_data
from recipe_comparison.plan import Row, Size

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")


def run_row(row: Row, size: Size, weights: str, data_dir: Path, out: Path) -> dict[str, Any]:
    """Trains a row, or goes on with it, and writes `rows/KEY.json`; returns what that holds.

    Raises:
      Interrupted: a signal came; called again, it goes on.
    """
    done = out / "rows" / f"{row.key}.json"
    if done.exists():
        return json.loads(done.read_text())
    folder = out / "runs" / row.key
    resume = (folder / CONFIG).exists()
    config = row.config(size, weights).replace(run=folder, data_dir=data_dir, log_every=50, resume=resume)
    say(f"--- {row.key}")
    results = train(config)
    data = open_data(config.data, config.batches, seed=config.seed)
    found = {
        "part": row.part,
        "name": row.name,
        "seed": row.seed,
        "size": {"image_size": size.image_size, "epochs": size.epochs, "limit": size.limit},
        "weights": weights if weights == "random" else Path(weights).name,
        "fields": json.loads(json.dumps(row.fields)),
        "heads": _figures(folder, data_dir),
        "history": results["history"],
        "passes": sum(one.num_pictures for one in data.stream.passes),
        "pictures": {
            which: {task: len(examples.labelled(task)) for task in config.data.tasks}
            for which, examples in (("train", data.training), ("val", data.validation))
        },
        "seconds": results["seconds"],
        "environment": describe(PACKAGES, results["environment"]["devices"]),
    }
    write_json(done, found)
    if (row.part, row.name) != ("seeds", "best"):
        shutil.rmtree(folder / checkpoints.FOLDER)  # 100 MB a row that nobody looks at again
    return found


def _figures(folder: Path, data_dir: Path) -> dict[str, dict[str, float]]:
    """Returns accuracy, loss, calibration error and count of each head of a run's final weights."""
    answers = answers_of_run(folder, data_dir=data_dir).answers
    figures = {}
    for task in answers.classes:
        logits, labels = answers.labelled(task)
        result = head_result(logits, labels, batch_size=len(labels))
        figures[task] = {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "calibration_error": calibration_error(probabilities(logits), labels),
            "n": result.n,
        }
    return figures
