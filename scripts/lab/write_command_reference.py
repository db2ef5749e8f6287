"""Writes docs/reference/commands.md from the parser of each command: python scripts/lab/write_command_reference.py

To be run when an option was added or changed; a test compares.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from pathlib import Path

from facefeat_jax.cli import COMMANDS
from facefeat_jax.commands._options import DEVICE, options_of, usage_of
from facefeat_jax.config import TrainConfig, list_recipes
from facefeat_jax.system.markdown import code, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "commands.md"
_SHORT = {"train": f"Trains a model by a recipe ({', '.join(list_recipes())}), with the fields that are given changed."}


def page() -> str:
    """Returns the page."""
    parts = [
        "# Commands",
        "`python scripts/lab/write_command_reference.py` made this page from the parser; `facefeat COMMAND --help` is "
        "the same. Recipes change the defaults of `train`. `facefeat version` prints the version. Exit codes: 0 done, "
        "2 wrong call or input, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.",
        f"All commands that compute take {code(DEVICE.usage)} too: {DEVICE.help}",
    ]
    for command, module in COMMANDS.items():
        kind = TrainConfig if command == "train" else importlib.import_module(module).Arguments
        name = "train RECIPE" if command == "train" else command
        about = _SHORT.get(command) or inspect.cleandoc(kind.__doc__ or "")
        parts += [f"## {command}", f"```text\n{usage_of(name, kind)}\n```", about]
        for group, members in itertools.groupby(options_of(kind), lambda option: option.group):
            parts += [f"**{group.rstrip('.')}**"] if group else []
            rows = [[code(one.usage), one.help, one.default and code(one.default)] for one in members]
            parts.append("\n".join(table(["argument", "what it does", "default"], rows, texts=3)))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(__doc__)
    PAGE.write_text(page(), encoding="utf-8")
