"""Run folders of torch files, and torch files of run folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import weights_conversion
from facefeat_jax.config import load_recipe
from facefeat_jax.errors import UserError, unknown
from facefeat_jax.run_folder import create_from_weights, open_run
from facefeat_jax.spec import ModelSpec
from facefeat_jax.tasks import NOTEBOOK_SHIRT_CLASSES, TASKS
from facefeat_jax.training.checkpoints import Which

# Under which an exported file carries its class names.
CLASSES_KEY = "facefeat_classes"
_HEAD_OUTPUT = "_head.2.bias"


@dataclasses.dataclass(frozen=True)
class Converted:
    """What `convert` made.

    Attributes:
      run: the run folder.
      spec: what the model is.
      note: where the class names came from, where that needs saying.
    """

    run: Path
    spec: ModelSpec
    note: str


def convert(source: Path, run: Path, *, classes: Mapping[str, Sequence[str]] | None = None) -> Converted:
    """Makes a run folder of a file with the baseline's names, which `evaluate` and `predict` take.

    Args:
      source: a `.pth` or `.safetensors` file with `backbone.*` and `{task}_head.*`.
      run: the folder to make.
      classes: class names by task, in the order of the outputs. The default is what the file carries (ours do); a file
        that carries none is taken for the notebook's, which numbered its colours white, pink, blue, black, red, yellow,
        green, brown.

    Raises:
      UserError: the file can't be read or doesn't fit, or the class names don't fit its heads.
    """
    tensors = weights_conversion.read(source)
    weights_conversion.check_finite(tensors, source)
    widths = {
        name.removesuffix(_HEAD_OUTPUT): int(np.size(array))
        for name, array in tensors.items()
        if name.endswith(_HEAD_OUTPUT)
    }
    if wrong := [name for name in widths if not name.isidentifier()]:
        raise UserError(f"{source} has a head of the name {wrong[0][:60]!r}; a task's name is letters, digits and _")
    if not widths:
        raise UserError(
            f"{source} has no heads ({{task}}_head.2.bias), so there is nothing to predict with. "
            "To train from it: facefeat train RECIPE --weights FILE"
        )
    names, note = _class_names(source, widths, classes or {})
    # In the table's order, whatever the file's; heads of one's own come last.
    ordered = {task: names[task] for task in (*(t for t in TASKS if t in names), *(t for t in names if t not in TASKS))}
    config = dataclasses.replace(load_recipe("baseline"), run=run, tasks=tuple(ordered), weights=str(source))
    spec = ModelSpec(config.trunk, ordered, config.image_size, config.decode, str(source))
    model = weights_conversion.to_flax(tensors, spec.abstract(), source=str(source))
    create_from_weights(run, spec, model, config)
    return Converted(run, spec, note)


def _class_names(
    source: Path, widths: Mapping[str, int], given: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Returns the class names of each head, and what is to be said of where they came from."""
    for task in given:
        if task not in widths:
            raise unknown(f"head in {source}", task, widths)
    in_file = _carried(source)
    notebook = {**{name: task.classes for name, task in TASKS.items()}, "shirt": NOTEBOOK_SHIRT_CLASSES}
    names, note = {}, ""
    for task, width in widths.items():
        if task in given:
            names[task] = tuple(given[task])
        elif task in in_file:
            names[task] = in_file[task]
        elif task in notebook:
            names[task] = notebook[task]
            if task == "shirt":
                note = (
                    f"{source} carries no class names: shirt colours are taken in the notebook's training order "
                    f"({', '.join(NOTEBOOK_SHIRT_CLASSES)}); --classes shirt=... gives another"
                )
        else:
            raise UserError(
                f"{source} has a head {task!r} whose class names are not known; give them: --classes {task}=a,b"
            )
        needed = 2 if width == 1 else width
        if len(names[task]) != needed:
            raise UserError(
                f"the {task} head of {source} tells {needed} classes apart, but {len(names[task])} names are given "
                f"({', '.join(names[task])}); --classes {task}=... takes one for each"
            )
    return names, note


def _carried(source: Path) -> dict[str, tuple[str, ...]]:
    """Returns the class names that `export` put into the file."""
    text = weights_conversion.read_metadata(source).get(CLASSES_KEY)
    try:
        found = json.loads(text) if text else {}
        if all(_is_class_names(names) for names in found.values()):
            return {task: tuple(names) for task, names in found.items()}
    except (ValueError, AttributeError, RecursionError):
        pass
    raise UserError(f"the class names in {source} can't be read; give them: --classes TASK=NAME,...")


def _is_class_names(names: Any) -> bool:
    """Whether these are what `export` writes: names that differ, and that a terminal shows as they are."""
    return (
        isinstance(names, list)
        and all(isinstance(name, str) and name and name.isprintable() for name in names)
        and len(set(names)) == len(names)
    )


def export(run: Path, out: Path, checkpoint: Which = "newest") -> ModelSpec:
    """Writes a run's checkpoint as a torch file with the baseline's names.

    PyTorch loads it with `strict=True`. The class names travel in it, where torch does not look.

    Args:
      run: the run folder.
      out: a `.pth`, `.pt` or `.safetensors` file.
      checkpoint: `newest` or `best`; see `run_folder.open_run`.

    Returns:
      What the model is.

    Raises:
      UserError: not a run, or the file can't be written.
    """
    opened = open_run(run, checkpoint)
    weights_conversion.write(
        out, weights_conversion.to_torch(opened.model), metadata={CLASSES_KEY: json.dumps(opened.spec.classes)}
    )
    return opened.spec
