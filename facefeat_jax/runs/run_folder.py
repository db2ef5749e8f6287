"""The run folder: its files, and loading a model from it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from facefeat_jax.config import TrainConfig
from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs import checkpoints
from facefeat_jax.runs._about import CALIBRATION, LIKENESS, ONNX
from facefeat_jax.runs.run_config import CONFIG as CONFIG
from facefeat_jax.runs.run_config import EDITABLE, read_config
from facefeat_jax.runs.run_config import LOCK as LOCK
from facefeat_jax.runs.run_config import is_run as is_run
from facefeat_jax.runs.spec import NUMERICS, ModelSpec
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import only_one, write_whole
from facefeat_jax.system.progress import say
from facefeat_jax.system.runtime import set_numerics

METRICS = "metrics.jsonl"
RESULTS = "results.json"
REPORT = "report.html"
CURVES = "curves.png"
OLD_CALIBRATION = "calibration.json"  # of versions that kept a calibration for the whole run
MODEL_CARD = "model-card.md"
EVALUATION = "evaluation"
AUDIT = "audit"
DATA = "data.json"
PICTURES = "data.npy"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Run:
    """A run loaded from its folder.

    Attributes:
      folder: the run folder.
      config: the config of the run.
      spec: trunk, class names and preprocessing of the model.
      model: the model with the weights of a checkpoint, in evaluation mode.
      step: step of the checkpoint.
    """

    folder: Path
    config: TrainConfig
    spec: ModelSpec
    model: MultiTaskModel
    step: int


def write_file(path: Path, content: bytes) -> Path:
    """Writes a file of a run, all of it or nothing; makes the folder where it is not there.

    Raises:
      UserError: the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_whole(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} can't be written ({reason}); make room or give another folder") from error


def write_json(path: Path, value: Any) -> Path:
    """Writes JSON as `write_file` does."""
    return write_file(path, (json.dumps(value, indent=2, default=_plain) + "\n").encode())


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def write_config(folder: Path, config: TrainConfig) -> Path:
    """Writes the config of a run folder.

    Raises:
      UserError: it can't be written.
    """
    return write_json(folder / CONFIG, checked_json.with_digest(config.to_json(), editable=EDITABLE))


def warn_unchecked(folder: Path) -> None:
    """Prints that an earlier version wrote the run, so damage in its files can't be detected."""
    say(
        f"{folder} was written by an earlier version: {CONFIG}, calibration and the model's description can't be "
        "checked for damage"
    )


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process: two runs in a folder would spoil each other's checkpoints.

    Raises:
      UserError: another process holds it, or it can't be made.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(only_one(folder / LOCK))
        except BlockingIOError:
            raise UserError(
                f"another process is training in {folder}; wait for it to end, or give --run another folder"
            ) from None
        except OSError as error:
            raise UserError(f"{folder} can't be used ({error.strerror or error}); give --run another folder") from error
        yield


def clear(folder: Path) -> None:
    """Deletes what a run wrote into its folder, but for its config, and nothing else that lies there.

    The config is written anew by the next run; until then it marks the folder as a run.

    Raises:
      UserError: something can't be deleted.
    """
    try:
        others = [path.name for path in folder.glob(f"{EVALUATION}-*")]  # on other data
        for name in (checkpoints.FOLDER, TENSORBOARD, EVALUATION, AUDIT, CALIBRATION, LIKENESS, ONNX, *others):
            if (folder / name).exists():
                shutil.rmtree(folder / name)
        for name in (METRICS, RESULTS, REPORT, CURVES, OLD_CALIBRATION, MODEL_CARD, DATA, PICTURES):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder} can't be overwritten ({error}); give --run another folder") from error


def open_run(folder: Path, checkpoint: checkpoints.Which = "newest") -> Run:
    """Reads the config and a checkpoint of a run folder.

    A run in float64 switches JAX's 64-bit types on for the whole process, as training it did.

    Args:
      folder: the run folder.
      checkpoint: `newest` (if it is damaged, the previous, with a message), or `best`, by validation, in a run trained
        with `keep_best`.

    Raises:
      UserError: the folder is not a run, or holds no checkpoint that can be read.
    """
    config = read_config(folder)
    store = folder / checkpoints.FOLDER
    if not store.is_dir():
        raise UserError(
            f"{folder} has no checkpoint yet: {checkpoints.FOLDER}/ is missing. Train it first (with --resume)"
        )
    before = {name: getattr(config.numerics, name) for name in NUMERICS}

    def read(step: int) -> Run:
        spec = reader.spec(step, before=before)
        set_numerics(spec.dtype, spec.param_dtype, spec.matmul_precision)
        graphdef, params, batch_stats = split_values(spec.abstract())
        model = nnx.merge(graphdef, *reader.restore_model(step, params, batch_stats))
        model.eval()
        return Run(folder, config, spec, model, step)

    with contextlib.closing(checkpoints.Checkpoints(folder, read_only=True)) as reader:
        run = read(_best(reader, folder)) if checkpoint == "best" else reader.newest(read)
    if run is None:
        raise UserError(f"{store} holds no complete checkpoint. Train it first (with --resume)")
    if run.step in reader.unchecked:
        warn_unchecked(folder)
    return run


def _best(reader: checkpoints.Checkpoints, folder: Path) -> int:
    found = reader.newest(lambda step: (reader.about(step)["history"], len(reader.spec(step).classes)))
    step = checkpoints.best_step(*found) if found else None
    if step is None:
        raise UserError(f"{folder} has not validated an epoch yet, so it has no best checkpoint")
    if step not in reader.steps():
        raise UserError(
            f"{folder} no longer holds its best checkpoint, of step {step}; train with --keep-best to keep it"
        )
    return step


def has_checkpoint(folder: Path) -> bool:
    """Returns whether a run has a checkpoint to continue from; the weights that it began with are not needed then."""
    if not (folder / checkpoints.FOLDER).is_dir():
        return False
    with contextlib.closing(checkpoints.Checkpoints(folder, read_only=True)) as store:
        return bool(store.steps())


def newest_spec(folder: Path, *, before: Mapping[str, Any]) -> ModelSpec | None:
    """Returns what the model of the newest checkpoint that can be read is; None where none can be read.

    Args:
      folder: a run folder with checkpoints (`has_checkpoint`).
      before: for `ModelSpec.from_json`.

    Raises:
      UserError: this version can't build such a model.
    """
    with contextlib.closing(checkpoints.Checkpoints(folder, read_only=True)) as store:
        for step in store.steps():
            with contextlib.suppress(checkpoints.DamagedError):  # which is reported where it is restored
                return store.spec(step, before=before)
    return None


def create_from_weights(
    folder: Path,
    spec: ModelSpec,
    model: MultiTaskModel,
    config: TrainConfig,
    finish: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Makes a run folder of a model that was trained elsewhere.

    Args:
      folder: where to.
      spec: what the model is.
      model: its weights, which become the checkpoint of step 0.
      config: the run's.
      finish: is given the folder before it has its name, to write more into it.

    Raises:
      UserError: the folder already holds something, or can't be made.
    """
    _, params, batch_stats = split_values(model)
    # Beside its place, then moved: what an interrupted conversion leaves is not taken for a run, nor is it in the way.
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; give a new folder")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        checkpoints.save_model(partial, spec, params, batch_stats)
        write_config(partial, config)
        finish(partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} can't be used as a run folder ({error.strerror}); give a new folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
