"""`export --to onnx` and `--to stablehlo`: a run as one file that other programs run, checked before it is there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from facefeat_jax.evaluation.calibration import Calibration
from facefeat_jax.evaluation.metrics import probabilities
from facefeat_jax.exporting._agreement import Agreement, answers_of, differences, in_float32, logits_of, pictures_of
from facefeat_jax.exporting._description import description
from facefeat_jax.exporting._formats import SUFFIXES, Portable
from facefeat_jax.runs._head_calibration import HeadCalibration
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import write_whole


def export_portable(run: Path, out: Path, form: Portable, checkpoint: Which = "newest") -> tuple[ModelSpec, Agreement]:
    """Writes a run's checkpoint as a file that needs none of this program to be run.

    The file takes uint8 pictures and gives calibrated probabilities and logits, computed in float32. All else that
    decides the answers travels in it (`_description`). It is read back and compared with the run on pictures before it
    appears under its name; an older file of that name stays until then.

    Args:
      run: the run folder.
      out: the file, `.onnx` or `.stablehlo`.
      form: its format.
      checkpoint: `newest` or `best`; see `run_folder.open_run`.

    Returns:
      What the model is, and how near its answers are.

    Raises:
      UserError: not a run, the file can't be written, or its answers are not those of the run.
    """
    check_name(out, form)
    # Loaded here, where a missing extra is reported before anything slow.
    format_: Any = importlib.import_module(f"facefeat_jax.exporting._{form}")
    opened = open_run(run, checkpoint)
    calibration = Calibration.read(run, step=opened.step, tasks=opened.spec.classes)
    heads = {**dict.fromkeys(opened.spec.classes, HeadCalibration()), **(calibration.heads if calibration else {})}
    temperatures = {task: head.temperature for task, head in heads.items()}
    pictures, are_own = pictures_of(opened)
    model, spec = in_float32(opened.model, opened.spec)
    reference = logits_of(model, spec)
    expected = reference(pictures)
    likeness = Likeness.read(run, step=opened.step, tasks=opened.spec.classes)
    about = description(opened, heads, likeness, checkpoint, reference)
    largest: dict[str, float] = {}

    def write(file: IO[bytes]) -> None:
        file.write(format_.to_bytes(model, spec, temperatures, about))
        file.seek(0)
        found = answers_of(format_.runner(file.read()), pictures)
        largest.update(differences(expected, found, heads, likeness, str(out)))

    write_checked(out, write)
    from_run = None
    if (opened.spec.dtype, opened.spec.param_dtype) != ("float32", "float32"):
        own = logits_of(opened.model, opened.spec)(pictures)
        from_run = max(_largest(own[task], expected[task], heads[task].temperature) for task in heads)
    return opened.spec, Agreement(len(pictures), are_own, largest, from_run)


def check_name(out: Path, form: Portable) -> None:
    """Raises UserError where a file of that format can't have this name, or its folder is not there."""
    if out.suffix.lower() != SUFFIXES[form]:
        raise UserError(f"{out}: --to {form} writes a {SUFFIXES[form]} file; give a name that ends so")
    if not out.parent.is_dir():
        raise UserError(f"{out} can't be written: the folder does not exist; make it first")


def write_checked(out: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Writes a file that appears under its name only where `write`, which also checks it, does not fail.

    Raises:
      UserError: it can't be written, or what `write` raises.
    """
    try:
        write_whole(out, write)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{out} can't be written ({reason}); make room or give another file") from error


def _largest(logits: np.ndarray, others: np.ndarray, temperature: float) -> float:
    return float(np.abs(probabilities(logits / temperature) - probabilities(others / temperature)).max())
