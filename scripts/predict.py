"""Prints what a run says of pictures, as `facefeat predict` does: python scripts/predict.py RUN IMAGE..."""

from facefeat_jax.cli import command

command("predict")
