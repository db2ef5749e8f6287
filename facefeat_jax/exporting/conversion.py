"""`convert` and `export`: from a torch file with the baseline's names to a run folder, and back."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import weights_conversion
from facefeat_jax.config import load_recipe
from facefeat_jax.evaluation._carried import LIKENESS_KEY, LONGEST, carried, is_class_names
from facefeat_jax.evaluation.calibration import Calibration
from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.runs._about import EXPORTED
from facefeat_jax.runs._head_calibration import heads_to_json
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import create_from_weights, open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import checked_json, kinds
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.kinds import DecodePolicy
from facefeat_jax.system.runtime import set_numerics
from facefeat_jax.tasks import NOTEBOOK_SHIRT_CLASSES, TASKS

# Beside what the model is: the class names alone, for other programs.
CLASSES_KEY = "facefeat_classes"
_HEAD_OUTPUT = "_head.2.bias"


@dataclasses.dataclass(frozen=True)
class Converted:
    """What `convert` made.

    Attributes:
      run: the run folder.
      spec: what the model is.
      notes: what was assumed, chosen or changed; a line each. Empty for a file that `export` wrote.
    """

    run: Path
    spec: ModelSpec
    notes: tuple[str, ...]

    @property
    def note(self) -> str:
        """The notes as one text."""
        return "; ".join(self.notes)


def export(run: Path, out: Path, checkpoint: Which = "newest") -> ModelSpec:
    """Writes a run's checkpoint as a torch file with the baseline's names.

    PyTorch loads it with `strict=True`. All else that decides the answers (`ModelSpec`, calibration) travels in it,
    where torch does not look.

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
    calibration = Calibration.read(run, step=opened.step)
    likeness = Likeness.read(run, step=opened.step, tasks=opened.spec.classes)
    content = {"spec": opened.spec.to_json(), "calibration": calibration and heads_to_json(calibration.heads)}
    metadata = {
        EXPORTED: json.dumps(checked_json.with_digest(content)),
        CLASSES_KEY: json.dumps(opened.spec.classes),
    }
    if likeness is not None:
        metadata[LIKENESS_KEY] = json.dumps(checked_json.with_digest(likeness.to_json()))
    weights_conversion.write(out, weights_conversion.to_torch(opened.model), metadata=metadata)
    return opened.spec


def convert(
    source: Path,
    run: Path,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    trunk: str | None = None,
    image_size: int | None = None,
    decode: DecodePolicy | None = None,
    key: str | None = None,
) -> Converted:
    """Makes a run folder of a file with the baseline's names, which `evaluate` and `predict` take.

    A file that `export` wrote gives a run with the same answers. Of others the trunk is recognised, and what they don't
    say is assumed as the notebook has it, and noted: pictures of 224 pixels decoded by `as_notebook`, ImageNet's mean
    and deviation, the tables' class names (shirt colours in the notebook's training order).

    Args:
      source: a `.pth` or `.safetensors` file with `backbone.*` and `{task}_head.*`.
      run: the folder to make.
      classes: class names by task, in the order of the outputs. Like the next three, they replace what the file says or
        what would be assumed.
      trunk: name of the trunk.
      image_size: side of the pictures in pixels.
      decode: how files become RGB.
      key: which set of weights, of several in the file; see `weights_conversion.read`.

    Raises:
      UserError: the file can't be read or doesn't fit, or the class names don't fit its heads.
    """
    named = {task: kinds.names(names, f"the classes of {task}") for task, names in (classes or {}).items()}
    notes: list[str] = []
    tensors = weights_conversion.read(source, key=key, note=notes.append)
    tensors = weights_conversion.as_notebooks(tensors, note=lambda line: notes.append(f"{source}: {line}"))
    weights_conversion.check_finite(tensors, source)
    file = _File(source, tensors, weights_conversion.read_metadata(source), named, trunk, image_size, decode, notes)
    spec, calibration, likeness = file.carried() if EXPORTED in file.metadata else (file.assumed(), None, None)
    set_numerics(spec.dtype, spec.param_dtype, spec.matmul_precision)
    model = weights_conversion.to_flax(tensors, spec.abstract(), source=str(source))
    config = load_recipe("baseline").replace(
        run=run,
        tasks=tuple(spec.classes),
        weights=str(source),
        **{name: getattr(spec, name) for name in ("trunk", "image_size", "decode", "dtype", "param_dtype")},
        matmul_precision=spec.matmul_precision,
    )

    def finish(folder: Path) -> None:
        for part in (calibration, likeness):
            if part is not None:
                part.write(folder)

    create_from_weights(run, spec, model, config, finish=finish)
    return Converted(run, spec, tuple(notes))


@dataclasses.dataclass(frozen=True)
class _File:
    """A file that is converted: what it holds, and what the caller of `convert` says of it (None or empty: nothing)."""

    source: Path
    tensors: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]
    classes: Mapping[str, Sequence[str]]
    trunk: str | None
    image_size: int | None
    decode: DecodePolicy | None
    notes: list[str]  # what is assumed or changed is added

    @functools.cached_property
    def widths(self) -> dict[str, int]:
        """How many outputs each head has.

        Raises:
          UserError: there is no head, a head has a name that no task can have, or classes are given for no head.
        """
        source = self.source
        widths = {
            name.removesuffix(_HEAD_OUTPUT): int(np.size(array))
            for name, array in self.tensors.items()
            if name.endswith(_HEAD_OUTPUT)
        }
        if wrong := [name for name in widths if not name.isidentifier()]:
            name = wrong[0][:60]
            raise UserError(f"{source} has a head of the name {name!r}; a task's name is letters, digits and _")
        if not widths:
            why = weights_conversion.cause_of([name for name in self.tensors if "_head" in name])
            raise UserError(
                f"{source} has no heads ({{task}}_head.0 and .2), so there is nothing to predict with"
                f"{f': it has {why}' if why else ''}. To train from it: facefeat train RECIPE --weights FILE"
            )
        for task in self.classes:
            if task not in widths:
                raise unknown(f"head in {source}", task, widths)
        return widths

    def carried(self) -> tuple[ModelSpec, Calibration | None, Likeness | None]:
        """Returns what `export` put into the file, with what the caller changes."""
        widths = self.widths
        where, found = f"the description of the model in {self.source}", carried(self.metadata, self.source)
        spec, calibration, likeness = found.spec, found.calibration, found.likeness
        if spec.classes.keys() != widths.keys():
            named, held = ", ".join(spec.classes), ", ".join(widths)
            raise UserError(f"{where} names the heads {named}, its weights have {held}; export it again")
        self._check_names(spec.classes)
        changes: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("trunk", "image_size", "decode")
            if getattr(self, name) not in (None, getattr(spec, name))
        }
        if changes:
            named = ", ".join(f"{name} {value} instead of {getattr(spec, name)}" for name, value in changes.items())
            lost = ", so its calibration is dropped" if calibration else ""
            self.notes.append(f"{self.source}: {named}, as given{lost}")
            spec, calibration, likeness = dataclasses.replace(spec, **changes), None, None
        if self.classes:
            renamed = {task: tuple(self.classes.get(task, names)) for task, names in spec.classes.items()}
            self._check_names(renamed)
            spec = dataclasses.replace(spec, classes=renamed)
        return spec, calibration, likeness

    def assumed(self) -> ModelSpec:
        """Returns the spec of a file that doesn't say what its model is; what is assumed goes to the notes."""
        names, source, tensors = self._class_names(), self.source, self.tensors
        # In the table's order, whatever the file's; heads of other tasks come last.
        ordered = {
            task: names[task] for task in (*(t for t in TASKS if t in names), *(t for t in names if t not in TASKS))
        }
        trunk = self.trunk or weights_conversion.recognise(tensors)
        if trunk is None:
            trunk = weights_conversion.nearest(tensors) or load_recipe("baseline").model.trunk
        made_for = weights_conversion.position_size(tensors) if get_architecture(trunk).fixed_size else None
        size, decode = self.image_size or made_for or 224, self.decode or "as_notebook"
        if self.image_size is None:
            why = "what its position embeddings are for" if made_for else "the notebook's"
            self.notes.append(
                f"{source} does not state the size of its pictures: assuming {size} pixels, {why}; change it with "
                "--image-size"
            )
        if self.decode is None:
            self.notes.append(
                f"{source} does not state how files were decoded: assuming {decode}; change it with --decode"
            )
        mean, std = ("/".join(map(str, values)) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.notes.append(
            f"{source} does not state how pictures were resized and normalised: assuming bilinear, with ImageNet's "
            f"mean {mean} and standard deviation {std}"
        )
        if any(array.dtype == np.float64 for array in tensors.values()):
            self.notes.append(f"{source} has float64 weights: converted to float32, and computed in float32")
        return ModelSpec(trunk, ordered, size, decode, str(source), made_for=made_for)

    def _class_names(self) -> dict[str, tuple[str, ...]]:
        """Returns the class names of each head; what is assumed goes to the notes."""
        widths, in_file = self.widths, self._carried_classes()
        notebook = {**{name: task.classes for name, task in TASKS.items()}, "shirt": NOTEBOOK_SHIRT_CLASSES}
        names = {}
        for task in widths:
            if task in self.classes:
                names[task] = tuple(self.classes[task])
            elif task in in_file:
                names[task] = in_file[task]
            elif task in notebook:
                names[task] = notebook[task]
                order = "in the notebook's training order " if task == "shirt" else ""
                self.notes.append(
                    f"{self.source} has no class names: assuming {order}{', '.join(notebook[task])} for {task}; "
                    f"change them with --classes {task}=..."
                )
            else:
                raise UserError(
                    f"{self.source} has a head {task!r} whose class names are not known; give them: "
                    f"--classes {task}=a,b"
                )
        self._check_names(names)
        return names

    def _check_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Raises UserError where a head has another number of outputs than its class names ask for."""
        for task, width in self.widths.items():
            needed = 2 if width == 1 else width
            if len(names[task]) != needed:
                raise UserError(
                    f"the {task} head of {self.source} tells {needed} classes apart, but {len(names[task])} names are "
                    f"given ({', '.join(names[task])[:200]}); --classes {task}=... takes one for each"
                )

    def _carried_classes(self) -> dict[str, tuple[str, ...]]:
        """Returns the class names that earlier versions of `export` put into the file, without all the rest."""
        text = self.metadata.get(CLASSES_KEY)
        try:
            found = checked_json.parse(text[:LONGEST]) if text else {}
            if all(is_class_names(names) for names in found.values()):
                return {task: tuple(names) for task, names in found.items()}
        except (ValueError, AttributeError):
            pass
        raise UserError(f"the class names in {self.source} can't be read; give them: --classes TASK=NAME,...")
