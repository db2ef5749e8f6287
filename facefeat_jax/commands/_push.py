"""`facefeat push`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from facefeat_jax.system.progress import show, show_json


@dataclass(frozen=True)
class Arguments:
    """Writes the newest checkpoint of a run and its model card to the Hugging Face Hub. Needs the extra `hub`."""

    run: tyro.conf.Positional[Path]
    """Folder of the run. It needs a model card, which training and `facefeat evaluate` write."""
    name: tyro.conf.Positional[str]
    """Name of the model on the Hub: owner/name. It is made if it is not there. $HF_TOKEN must allow writing."""
    private: bool = False
    """Make a new model private."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Writes the model and prints its commit; returns the exit code.

    Raises:
      UserError: the run can't be read, or the Hub does not take it.
    """
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    from facefeat_jax.exporting.hub import push

    commit = push(arguments.run, arguments.name, private=arguments.private)
    if arguments.json:
        show_json({"name": arguments.name, "commit": commit})
        return 0
    show(f"wrote {arguments.run} to {arguments.name}, commit {commit}")
    show(f"use it: facefeat predict hf://{arguments.name} IMAGE...")
    return 0
