"""`export --int8`: a run as an ONNX file in int8 for CPUs, calibrated anew; refused if it certainly loses accuracy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from facefeat_jax.data.builders import is_drawn
from facefeat_jax.data.dataset import default_data_dir
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.pixels import PixelFormat, open_rows
from facefeat_jax.evaluation._likeness_check import fit_likeness
from facefeat_jax.evaluation._paired import Loss, paired_losses
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import ERROR_RATE, Calibration, calibrate
from facefeat_jax.evaluation.evaluate import answers_of_run
from facefeat_jax.exporting._agreement import answers_of, differences, in_float32, logits_of, pictures_of
from facefeat_jax.exporting._description import description
from facefeat_jax.exporting.portable import check_name, write_checked
from facefeat_jax.forward import FEATURES
from facefeat_jax.runs._about import POOLED
from facefeat_jax.runs._head_calibration import HeadCalibration
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import Run, open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.runs.unseen import halves
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import Bar
from facefeat_jax.system.text import format_accuracy

LEAST, MOST = 100, 512
"""Training pictures that the ranges of the activations are taken from: at least, and at most."""

ALLOWED = 0.003
"""Of accuracy: a loss whose whole interval lies beyond this is refused."""

_BATCH = 28  # of validation pictures; four times what `answers_of` runs at a time


@dataclass(frozen=True)
class Quantized:
    """What became of a run in int8.

    Attributes:
      pictures: training pictures that the ranges of the activations were taken from.
      float_bytes: size of the same model in float32.
      losses: the loss in accuracy on the validation pictures, by head and group.
      notes: remarks of the new calibration, by head.
    """

    pictures: int
    float_bytes: int
    losses: tuple[Loss, ...]
    notes: dict[str, tuple[str, ...]]


def export_int8(run: Path, out: Path, checkpoint: Which = "newest") -> tuple[ModelSpec, Quantized]:
    """Writes a run's checkpoint as an ONNX file whose trunk computes in int8.

    The float model is checked against the run first, as any export is. Temperatures, thresholds and what the training
    pictures are like are fitted anew, to the answers of the int8 model on the run's validation pictures.

    Args:
      run: the run folder; its data have to be there.
      out: the file, `.onnx`. An older file of that name stays until the new one is checked.
      checkpoint: `newest` or `best`; see `run_folder.open_run`.

    Returns:
      What the model is, and what became of it.

    Raises:
      UserError: not a run, its data are not there or too few, the file can't be written, or a head loses more accuracy
        than `ALLOWED`, on all pictures or on a group.
    """
    check_name(out, "onnx")
    # Loaded here, where a missing extra is reported before anything slow.
    files: Any = importlib.import_module("facefeat_jax.exporting._onnx")
    quantize: Any = importlib.import_module("facefeat_jax.exporting._quantize")
    opened = open_run(run, checkpoint)
    training = _training_pictures(opened)
    model, spec = in_float32(opened.model, opened.spec)
    plain = files.to_bytes(model, spec, {}, "")
    pictures, _ = pictures_of(opened)
    expected, uncalibrated = logits_of(model, spec)(pictures), dict.fromkeys(spec.classes, HeadCalibration())
    differences(expected, answers_of(files.runner(plain), pictures), uncalibrated, None, str(out))
    small = quantize.quantized(plain, training)
    found = answers_of_run(run, run=opened)
    logits = _logits(files.runner(small.SerializeToString()), tuple(spec.classes))
    answers = Answers.of(found.examples, spec.classes, _on_examples(logits, found.examples, opened))
    losses = tuple(paired_losses(found.answers, answers))
    _require_accuracy(losses, out)
    earlier = Calibration.read(run, step=opened.step, tasks=spec.classes)
    rate = max((head.error_rate for head in earlier.heads.values()), default=ERROR_RATE) if earlier else ERROR_RATE
    heads = calibrate(answers, step=opened.step, error_rate=rate).heads
    drawn = all(map(is_drawn, opened.config.data.sources))
    likeness = fit_likeness(
        answers, found.examples, lambda rows: logits(rows)[FEATURES], opened.spec, step=opened.step, drawn=drawn
    )
    quantization = {
        "weights": "int8 (7 bits), a scale for each channel",
        "activations": "uint8",
        "heads": "float32",
        "pictures": len(training),
        "losses": [asdict(loss) for loss in losses],
    }
    about = description(opened, heads, likeness, checkpoint, logits, quantization)
    quantize.set_temperatures(small, {task: head.temperature for task, head in heads.items()})

    def write(file: IO[bytes]) -> None:
        file.write(files.described(small, spec, about))
        file.seek(0)
        differences(logits(pictures), answers_of(files.runner(file.read()), pictures), heads, likeness, str(out))

    write_checked(out, write)
    return opened.spec, Quantized(len(training), len(plain), losses, {task: head.notes for task, head in heads.items()})


def _training_pictures(run: Run) -> np.ndarray:
    """Returns pictures that the run was trained on, not changed at random, spread evenly: uint8 `[n, size, size, 3]`.

    Raises:
      UserError: they are not there, or too few.
    """
    data = run.config.data
    if not data.sources:
        raise UserError(f"{run.folder} was not trained on a data set here; --int8 needs the run's training pictures")
    train = halves(run, data.data_dir or default_data_dir()).train
    if len(train) < LEAST:
        raise UserError(
            f"{run.folder}: of its training pictures {len(train):,} are there, and --int8 takes {LEAST} to choose the "
            "ranges of numbers from; export it without --int8"
        )
    rows = np.unique(np.linspace(0, len(train) - 1, min(MOST, len(train))).astype(np.int64))
    return open_rows(train, _pixels(run.spec), "off").take(rows)


def _pixels(spec: ModelSpec) -> PixelFormat:
    return PixelFormat(spec.image_size, spec.decode, spec.interpolation)


def _logits(runner: Callable[[np.ndarray], dict[str, np.ndarray]], tasks: Sequence[str]) -> Callable[..., Any]:
    """Returns what `logits_of` returns, of an exported model."""

    def logits(pictures: np.ndarray) -> dict[str, np.ndarray]:
        found = answers_of(runner, pictures)
        return {**{task: found[f"{task}_logits"] for task in tasks}, FEATURES: found[POOLED]}

    return logits


def _on_examples(logits: Callable[..., Any], examples: Examples, run: Run) -> dict[str, np.ndarray]:
    """Returns the logits of all pictures of the examples, a batch at a time."""
    rows, parts = open_rows(examples, _pixels(run.spec), run.config.pipeline.packed), []
    with Bar("evaluating int8", len(rows)) as bar:
        for start in range(0, len(rows), _BATCH):
            batch = rows.take(np.arange(start, min(start + _BATCH, len(rows))))
            parts.append(logits(batch))
            bar.advance(len(batch))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _require_accuracy(losses: Sequence[Loss], out: Path) -> None:
    """Raises UserError where a loss lies wholly beyond what is allowed; names the worst."""
    worst = max(losses, key=lambda loss: loss.interval[0])
    if worst.interval[0] > ALLOWED:
        allowed = f"all of it is more than {100 * ALLOWED:g} points"
        raise UserError(f"{out} is not written: {loss_line(worst)}, and {allowed}; export it without --int8")


def loss_line(loss: Loss) -> str:
    """Returns a loss in words."""
    low, high = (100 * end for end in loss.interval)
    where = f" on {loss.group}" if loss.group else ""
    return (
        f"{loss.head}{where}: accuracy {format_accuracy(loss.before)} before, {format_accuracy(loss.after)} in int8 "
        f"({loss.n:,} pictures; loss {100 * (loss.before - loss.after):+.2f} points, 95% interval {low:+.2f} to "
        f"{high:+.2f})"
    )
