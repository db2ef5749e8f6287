"""Whether an exported model answers as its run does: the pictures, the reference, and the comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

import weights_conversion
from facefeat_jax.evaluation.metrics import probabilities
from facefeat_jax.forward import FEATURES, make_predict_step, predicted
from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs._about import POOLED
from facefeat_jax.runs._head_calibration import HeadCalibration
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.run_folder import Run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError

LIMIT = 1e-5
"""The largest difference in probability that an exported model may have."""

CLOSE = 2e-5
"""Where two probabilities, or one and its threshold, are nearer than this, either answer may be given."""

_CLOSE_DISTANCE = 1e-3  # of a distance to its threshold, by which it is divided

Logits = Mapping[str, np.ndarray]
Calibrations = Mapping[str, HeadCalibration]
"""By head; all of them."""

_PICTURES = 32
_USUAL_SIZE = 224
_BATCH = 8
_OTHER_BATCH = 7  # of the exported model: its batch is free, and the last one is a short one


@dataclass(frozen=True)
class Agreement:
    """How an exported model's answers differ from those of its weights in float32 at the highest precision.

    Attributes:
      pictures: number of pictures.
      are_own: whether they are the run's validation pictures; else they are drawn.
      largest: by head, the largest difference in probability.
      from_run: of a run that computes in another format, the largest difference from the run itself.
    """

    pictures: int
    are_own: bool
    largest: dict[str, float]
    from_run: float | None = None


def in_float32(model: MultiTaskModel, spec: ModelSpec) -> tuple[MultiTaskModel, ModelSpec]:
    """Returns a model with the same weights in float32, and its spec, which has the highest precision."""
    spec = dataclasses.replace(spec, dtype="float32", param_dtype="float32", matmul_precision="highest")
    made = weights_conversion.to_flax(weights_conversion.to_torch(model), spec.abstract(), source="the run")
    made.eval()
    return made, spec


def pictures_of(run: Run) -> tuple[np.ndarray, bool]:
    """Returns pictures to compare on, uint8 `[n, size, size, 3]`, and whether they are the run's validation pictures.

    They are drawn where the run's data are not there.
    """
    spec, data = run.spec, run.config.data
    count = max(_BATCH, min(_PICTURES, _PICTURES * _USUAL_SIZE**2 // spec.image_size**2))
    with contextlib.suppress(UserError, ImportError):
        from facefeat_jax.data.dataset import default_data_dir
        from facefeat_jax.data.pixels import PixelFormat, open_rows
        from facefeat_jax.runs.unseen import open_unseen

        if data.sources:
            examples, _ = open_unseen(run, data.sources, data.data_dir or default_data_dir(), limit=data.limit)
            rows = open_rows(examples, PixelFormat(spec.image_size, spec.decode, spec.interpolation), "off")
            return rows.take(np.unique(np.linspace(0, len(examples) - 1, count).astype(np.int64))), True
    from facefeat_jax.avatars import draw
    from facefeat_jax.data.images import pixels_resized

    def drawn(number: int) -> np.ndarray:
        picture = draw(1, number).image
        return pixels_resized(picture, spec.image_size, spec.decode, interpolation=spec.interpolation)

    return np.stack([drawn(number) for number in range(count)]), False


def logits_of(model: MultiTaskModel, spec: ModelSpec) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns a function from pictures to a model's logits `[n, outputs]`, by head, and the pooled `FEATURES`."""
    graphdef, params, batch_stats = split_values(model)
    step, tasks = make_predict_step(graphdef, spec, model.trunk.dtype, features=True), tuple(spec.classes)

    def logits(pictures: np.ndarray) -> dict[str, np.ndarray]:
        with jax.default_matmul_precision(spec.matmul_precision):
            return predicted(step, params, batch_stats, pictures, tasks, _BATCH)

    return logits


def answers_of(exported: Callable[[np.ndarray], Logits], pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what an exported model gives for pictures, by the output's name."""
    parts = [exported(pictures[start : start + _OTHER_BATCH]) for start in range(0, len(pictures), _OTHER_BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def differences(
    expected: Logits, answers: Logits, heads: Calibrations, likeness: Likeness | None, what: str
) -> dict[str, float]:
    """Returns by head the largest difference in probability of an exported model from its reference.

    Args:
      expected: what `logits_of` the reference gives.
      answers: the exported model's outputs, `{task}_probabilities`, `{task}_logits` and `features`.
      heads: the calibrations.
      likeness: what the training pictures are like, where that is known.
      what: what the error calls the exported model.

    Raises:
      UserError: a difference is above `LIMIT`, or a label, `unsure` or `unlike` is another one where it is not close.
    """
    largest = {}
    for task, head in heads.items():
        wanted = probabilities(expected[task] / head.temperature)
        if not np.isfinite(wanted).all():
            raise UserError(f"{what} is not written: the answers of {task} are not numbers; try an earlier checkpoint")
        found = np.asarray(answers[f"{task}_probabilities"], np.float64)
        logits = np.asarray(answers[f"{task}_logits"], np.float64)
        of_logits = probabilities(logits / head.temperature)
        for values, of in ((found, "probabilities"), (of_logits, "logits")):
            difference = float(np.abs(values - wanted).max()) if values.shape == wanted.shape else np.nan
            if not difference <= LIMIT:
                raise UserError(
                    f"{what} is not written: its {of} of {task} differ by {difference:.1e} from the run's weights in "
                    f"float32, and {LIMIT:g} is the limit; export with --to torch, and report this"
                )
        if changed := _changed(wanted, found, head):
            raise UserError(f"{what} is not written: it gives another {changed} of {task}; report this")
        largest[task] = float(np.abs(found - wanted).max())
    for task, like in (likeness.heads if likeness else {}).items():
        wanted, found = (like.distance(values) / like.threshold for values in (expected[FEATURES], answers[POOLED]))
        if (((wanted > 1) != (found > 1)) & (np.abs(wanted - 1) > _CLOSE_DISTANCE)).any():
            raise UserError(f"{what} is not written: it finds other pictures unlike those of {task}; report this")
    return largest


def _changed(wanted: np.ndarray, found: np.ndarray, head: HeadCalibration) -> str:
    """Returns what is another answer than wanted, `label` or `unsure`, or nothing."""
    second, best = np.sort(wanted, axis=1)[:, -2:].T
    if ((wanted.argmax(axis=1) != found.argmax(axis=1)) & (best - second > CLOSE)).any():
        return "label"
    clear = np.abs(best - (head.threshold or 0.0)) > CLOSE
    return "unsure" if ((head.unsure(best) != head.unsure(found.max(axis=1))) & clear).any() else ""
