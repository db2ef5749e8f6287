"""Prints what a run says of pictures: python scripts/predict.py RUN IMAGE..."""

from pathlib import Path

import tyro

from facefeat_jax import Predictor
from facefeat_jax.errors import run_and_exit
from facefeat_jax.prediction.output import lines
from facefeat_jax.runtime import start_up


def main(run: tyro.conf.Positional[Path], images: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    start_up()
    predictor = Predictor.from_run(run)
    for line in lines(predictor.stream(images), tuple(predictor.spec.classes), "text"):
        print(line)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
