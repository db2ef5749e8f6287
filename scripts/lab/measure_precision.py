"""Compares the answers of trained weights in float32 and in bfloat16 on the validation pictures of their run.

    python scripts/lab/measure_precision.py RUN

Prints a Markdown table: the same weights, statistics and pictures; only the type of the computation differs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tyro
from flax import nnx

from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.evaluate import answers_of_run
from facefeat_jax.evaluation.metrics import head_result, predicted, probabilities
from facefeat_jax.models._values import split_values
from facefeat_jax.runs.run_folder import Run, open_run
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.runtime import start_up
from measuring import show

COLUMNS = ("head", "pictures", "accuracy", "in bfloat16", "loss", "in bfloat16", "other answers", "largest difference")


def answers_in(run: Run, dtype: str, data_dir: Path | None) -> Answers:
    """Returns the answers of a run's weights, computed in a type."""
    _, *values = split_values(run.model)
    spec = dataclasses.replace(run.spec, dtype=dtype)
    graphdef, *_ = split_values(spec.abstract())
    model = nnx.merge(graphdef, *values)
    model.eval()
    changed = dataclasses.replace(run, model=model, spec=spec)
    return answers_of_run(run.folder, data_dir=data_dir, run=changed).answers


def main(run: tyro.conf.Positional[Path], data_dir: Path | None = None) -> None:
    """Prints the table.

    Args:
      run: folder of a run.
      data_dir: where the prepared data sets lie; the default is the run's.
    """
    start_up()
    opened = open_run(run)
    single, half = (answers_in(opened, dtype, data_dir) for dtype in ("float32", "bfloat16"))
    rows = []
    for head in single.classes:
        (logits, labels), (logits_of_half, _) = single.labelled(head), half.labelled(head)
        one, two = (head_result(values, labels, batch_size=32) for values in (logits, logits_of_half))
        other = int(np.sum(predicted(logits) != predicted(logits_of_half)))
        largest = np.abs(probabilities(logits) - probabilities(logits_of_half)).max()
        figures = (one.accuracy, two.accuracy, one.loss, two.loss)
        rows.append([head, f"{one.n:,}", *(f"{figure:.4f}" for figure in figures), other, f"{largest:.4f}"])
    show(__file__, COLUMNS, rows)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
