"""`facefeat export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from facefeat_jax.system.progress import show, show_json


@dataclass(frozen=True)
class Arguments:
    """Writes a checkpoint of a run for PyTorch, with the notebook's names."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    file: tyro.conf.Positional[Path]
    """The file to write: .pth, .pt or .safetensors."""
    to: Literal["torch"] = "torch"
    """Format of the file."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Writes the file and prints the class names in the order of the outputs; returns the exit code.

    Raises:
      UserError: the run can't be read, or the file can't be written.
    """
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    from facefeat_jax.exporting.conversion import export

    spec = export(arguments.run, arguments.file, arguments.checkpoint)
    if arguments.json:
        show_json({"file": str(arguments.file), "classes": spec.classes})
    else:
        show(f"{arguments.file}: class names, in the order of the outputs")
        show(*(f"  {task}: {', '.join(names)}" for task, names in spec.classes.items()))
    return 0
