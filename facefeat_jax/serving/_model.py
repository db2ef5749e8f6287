"""The model that a server answers with, and what `/v1/model` and the page say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from facefeat_jax import __version__
from facefeat_jax.data._frames import WHOLE
from facefeat_jax.prediction._pictures import PicturePredictor
from facefeat_jax.runs._about import is_exported
from facefeat_jax.system.errors import UserError

_DRAWN = "avatars"  # of models that don't say what their training pictures are like
_LONGEST_CARD = 1 << 20  # characters


def open_model(
    path: Path, *, batch_size: int, checkpoint: Literal["newest", "best"] = "newest"
) -> tuple[PicturePredictor, dict[str, Any]]:
    """Loads a run by JAX, or an exported ONNX file by ONNX Runtime, without JAX.

    Returns:
      The model, and what is known of it, as JSON values.

    Raises:
      UserError: it can't be used.
    """
    model: PicturePredictor
    if is_exported(path):
        if not path.is_file():
            raise UserError(f"there is no file {path}; facefeat export RUN {path.name} makes one")
        from facefeat_jax.prediction.exported import OnnxPredictor

        model = exported = OnnxPredictor(path, batch_size=batch_size)
        name = str(_members(exported.about, "source").get("run", path.stem))
        sources, card = list(_members(_members(exported.about, "licences"), "training data")), None
    else:
        from facefeat_jax.runs.run_config import read_config

        config = read_config(path)  # before the slow imports
        from facefeat_jax.prediction.predictor import Predictor
        from facefeat_jax.runs.run_folder import MODEL_CARD

        model = Predictor.from_run(path, batch_size=batch_size, checkpoint=checkpoint)
        _compile(model, batch_size)
        name, sources, card = path.resolve().name, list(config.data.sources), _text(path / MODEL_CARD)
    spec = model.spec
    about = {
        "name": name,
        "model": model.fingerprint(),
        "version": __version__,
        "runtime": "onnx" if is_exported(path) else "jax",
        "classes": {task: list(names) for task, names in spec.classes.items()},
        "image_size": spec.image_size,
        "decode": spec.decode,
        "unsure": {
            task: {"threshold": head.threshold, "never_sure": head.never_sure, "error_rate": head.error_rate}
            for task, head in model._calibration.items()
        },
        "training_data": sources,
        "drawings_only": sources == [_DRAWN] if model.likeness is None else model.likeness.drawn,
        "looks_at_faces": any(frame != WHOLE for frame in spec.frames.values()),
        "card": card,
    }
    return model, about


def _compile(model: PicturePredictor, batch_size: int) -> None:
    """Has the programs for all sizes of a batch compiled now, not when the first client waits for one."""
    size = model.spec.image_size
    rows = [np.zeros((size, size, 3), np.uint8)] * batch_size
    count = 1
    while count < batch_size:
        model._answers(rows[:count], [""] * count)
        count *= 2
    model._answers(rows, [""] * batch_size)


def _members(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_CARD)
    except OSError:
        return None
