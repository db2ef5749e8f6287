"""Prints the results table of a run: python scripts/evaluate.py RUN [--data SOURCE ...]"""

from pathlib import Path

import tyro

from facefeat_jax.errors import run_and_exit
from facefeat_jax.evaluation.evaluate import evaluate_run
from facefeat_jax.evaluation.table import heads_table
from facefeat_jax.runtime import start_up


def main(run: tyro.conf.Positional[Path], data: tuple[str, ...] = ()) -> None:
    start_up()
    print(heads_table(evaluate_run(run, sources=data or None)))


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
