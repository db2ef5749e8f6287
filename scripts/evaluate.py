"""Evaluates a run, as `facefeat evaluate` does: python scripts/evaluate.py RUN [--data SOURCE ...]"""

from facefeat_jax.cli import command

command("evaluate")
