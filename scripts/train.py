"""Trains a recipe of `configs/`: python scripts/train.py RECIPE [--field value ...]"""

import sys

import tyro

from facefeat_jax.config import TrainConfig, load_recipe
from facefeat_jax.errors import run_and_exit
from facefeat_jax.evaluation.table import results_table
from facefeat_jax.runtime import start_up
from facefeat_jax.training.loop import train


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    config = tyro.cli(
        TrainConfig, default=load_recipe(sys.argv[1]), args=sys.argv[2:], config=(tyro.conf.FlagCreatePairsOff,)
    )
    start_up()
    print(results_table(train(config), sequential=config.schedule == "sequential"))


if __name__ == "__main__":
    run_and_exit(main)
