"""The `facefeat` command: usage, parsing, and the one function of each command in `facefeat_jax.commands`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from facefeat_jax import __version__
from facefeat_jax.commands._options import parse, take_device
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.main import run_and_exit, run_main
from facefeat_jax.system.runtime import require_usable_environment

USAGE = """usage: facefeat COMMAND ...

Detects gender, glasses and shirt colour in pictures.

  prepare SOURCE --from DIR     check a downloaded data set and store it for training
  train RECIPE [--field value]  train a model: {recipes}
  evaluate RUN                  measure a trained model, overall and by group, and calibrate it
  audit DATASET|RUN             find likely wrong labels, duplicates and imbalance
  predict RUN IMAGE...          predict labels and probabilities for pictures
  convert FILE --to RUN         make a run from a PyTorch file
  export RUN FILE               write a run as a file for PyTorch, ONNX or StableHLO
  serve RUN|FILE                answer over HTTP, with a page for people
  push RUN OWNER/NAME           write a run to the Hugging Face Hub
  models [NAME...]              list the trunks and their published weights
  launch N -- RECIPE ...        train with N processes, on one host or several
  benchmark                     measure the speed of each stage on this machine
  doctor                        print what a bug report needs
  version                       print the version

`facefeat COMMAND --help` describes a command. Exit codes: 0 done, 2 wrong call or input, 130 stopped by Ctrl-C, 143
stopped by SIGTERM (training can then be resumed)."""

COMMANDS = {
    "prepare": "facefeat_jax.commands._prepare",
    "train": "facefeat_jax.commands._train",
    "launch": "facefeat_jax.commands._launch",
    "evaluate": "facefeat_jax.commands._evaluate",
    "audit": "facefeat_jax.commands._audit",
    "predict": "facefeat_jax.commands._predict",
    "convert": "facefeat_jax.commands._convert",
    "export": "facefeat_jax.commands._export",
    "serve": "facefeat_jax.commands._serve",
    "push": "facefeat_jax.commands._push",
    "models": "facefeat_jax.commands._models",
    "benchmark": "facefeat_jax.benchmarking.command",
    "doctor": "facefeat_jax.commands._doctor",
}
"""The module of each command: its `Arguments`, and `run`, which takes them and returns the exit code."""

ALIASES = {"val": "evaluate", "eval": "evaluate"}
"""Other names of commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    return run_main(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def command(*words: str) -> NoReturn:
    """Runs a command as the whole process. Scripts put their `words` before the arguments of the process."""
    run_and_exit(lambda: _run([*words, *sys.argv[1:]]))


def _run(argv: list[str]) -> int:
    argv = take_device(argv)
    if not argv or argv[0] in ("-h", "--help"):
        from facefeat_jax.config import list_recipes

        print(USAGE.format(recipes=", ".join(list_recipes())))
        return 0 if argv else 2
    name, *rest = argv
    if name in ("version", "--version", "-V"):
        print(__version__)
        return 0
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    if name != "prepare" and not {"-h", "--help"} & {*argv}:  # which load no JAX
        require_usable_environment()
    if name == "train":
        return _train(rest)
    # Loaded here, because a command needs only its own.
    module = importlib.import_module(COMMANDS[name])
    if name == "launch":
        end = rest.index("--") if "--" in rest else len(rest)
        return module.run(parse(module.Arguments, name, rest[:end]), rest[end + 1 :])
    return module.run(parse(module.Arguments, name, rest))


def _train(argv: list[str]) -> int:
    """Parses the fields of a recipe and trains."""
    from facefeat_jax.commands import _train as training
    from facefeat_jax.config import TrainConfig, list_recipes, load_recipe

    if argv and argv[0] in ("-h", "--help"):
        print(
            f"usage: facefeat train RECIPE [--field value ...]\n\nRecipes: {', '.join(list_recipes())}. "
            "`facefeat train RECIPE --help` lists the fields and the recipe's values."
        )
        return 0
    if not argv or argv[0].startswith("-"):
        raise UserError(f"name a recipe: facefeat train RECIPE [--field value]. Recipes: {', '.join(list_recipes())}")
    return training.run(parse(TrainConfig, f"train {argv[0]}", argv[1:], load_recipe(argv[0])))


if __name__ == "__main__":
    command()
