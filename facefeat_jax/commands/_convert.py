"""`facefeat convert`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say, show, show_json


@dataclass(frozen=True)
class Arguments:
    """Makes a run folder from a PyTorch file with the notebook's names (backbone.*, gender_head.*, ...)."""

    file: tyro.conf.Positional[Path]
    """The .pth or .safetensors file to read."""
    to: Path
    """Folder of the new run."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK=NAME,...")] = ()
    """Class names in the order of the outputs, as TASK=NAME,NAME,..., for files without class names."""
    trunk: str | None = None
    """Name of the trunk. The default is the trunk that matches the names and shapes of the weights."""
    image_size: int | None = None
    """Height and width of the pictures in pixels. The default is the file's value, or 224."""
    decode: Literal["as_notebook", "upright"] | None = None
    """How picture files become RGB. The default is the file's value, or `as_notebook`."""
    key: str | None = None
    """Key of the weights in a file with several sets, for example state_dict_ema."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Makes the run folder and prints the class names; returns the exit code.

    Raises:
      UserError: the file, the class names or the folder can't be used.
    """
    if not arguments.file.exists():
        raise UserError(f"can't read weights from {arguments.file}: there is no such file; check the path")
    from facefeat_jax.exporting.conversion import convert

    made = convert(
        arguments.file,
        arguments.to,
        classes=parse_classes(arguments.classes),
        trunk=arguments.trunk,
        image_size=arguments.image_size,
        decode=arguments.decode,
        key=arguments.key,
    )
    if arguments.json:
        show_json({"run": str(made.run), "classes": made.spec.classes, "note": made.note, "notes": made.notes})
        return 0
    for note in made.notes:
        say(f"facefeat: {note}")
    show(*(f"{task}: {', '.join(ordered)}" for task, ordered in made.spec.classes.items()))
    show(f"wrote the run {made.run}/")
    return 0


def parse_classes(items: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the class names of each task from texts like `shirt=white,black`.

    Raises:
      UserError: a text is not of that form, names a class twice, or a task comes twice.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for item in items:
        task, separator, text = item.partition("=")
        names = tuple(name.strip() for name in text.split(","))
        if not separator or not all(names) or len(set(names)) < len(names) or task.strip() in classes:
            raise UserError(f"--classes takes TASK=NAME,NAME,... with different names, once per task; got {item!r}")
        classes[task.strip()] = names
    return classes
