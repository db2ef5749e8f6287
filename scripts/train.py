"""Trains a recipe of `configs/`, as `facefeat train` does: python scripts/train.py RECIPE [--field value ...]"""

from facefeat_jax.cli import command

command("train")
