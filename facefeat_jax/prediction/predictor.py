"""Predictions for pictures, from a trained run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from facefeat_jax.data.placement import Placement
from facefeat_jax.evaluation._carried import carried
from facefeat_jax.evaluation.calibration import Calibration
from facefeat_jax.evaluation.metrics import probabilities
from facefeat_jax.forward import FEATURES, make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.prediction._explanations import Explanations
from facefeat_jax.prediction._inputs import Reader, content_of
from facefeat_jax.prediction._pictures import PicturePredictor
from facefeat_jax.runs._about import EXPORTED
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.checkpoints import Which
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import slow_at_first
from facefeat_jax.system.runtime import set_numerics


class Predictor(PicturePredictor):
    """A model with its class names and preprocessing.

    Args:
      model: the model; it is put in evaluation mode.
      spec: trunk, class names and preprocessing of the model.
      batch_size: pictures per batch; they are split over this process's devices.
      threads: number of pictures to decode at the same time.
      calibration: calibration of the heads; None uses the raw probabilities.
      likeness: what the training pictures of the heads are like; None compares no picture with them.
      explain: folder for one image per picture that shows which parts support each answer (`evaluation.explain`).
      read: gives the content of a picture by its name; the default reads files.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        spec: ModelSpec,
        *,
        batch_size: int = 32,
        threads: int = 4,
        calibration: Calibration | None = None,
        likeness: Likeness | None = None,
        explain: Path | None = None,
        read: Reader = content_of,
    ):
        heads = calibration.heads if calibration else {}
        super().__init__(spec, heads, batch_size=batch_size, threads=threads, likeness=likeness, read=read)
        model.eval()
        graphdef, params, batch_stats = split_values(model)
        self._placement = Placement(jax.local_devices())
        self._params, self._batch_stats = jax.device_put((params, batch_stats), self._placement.replicated)
        step = make_predict_step(graphdef, spec, model.trunk.dtype, features=bool(likeness and likeness.heads))
        self._step = slow_at_first(step, "compiling the model")
        self.explanations = Explanations(explain, model, spec) if explain else None

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        *,
        batch_size: int = 32,
        threads: int = 4,
        checkpoint: Which = "newest",
        explain: Path | None = None,
        read: Reader = content_of,
    ) -> Predictor:
        """Loads a checkpoint of a run folder, `newest` or `best` (`run_folder.open_run`), with its calibration.

        Raises:
          UserError: the folder is not a run, or holds no checkpoint that can be read.
        """
        opened = open_run(Path(run), checkpoint)
        calibration = Calibration.read(Path(run), step=opened.step, tasks=opened.spec.classes)
        likeness = Likeness.read(Path(run), step=opened.step, tasks=opened.spec.classes)
        return cls(
            opened.model,
            opened.spec,
            batch_size=batch_size,
            threads=threads,
            calibration=calibration,
            likeness=likeness,
            explain=explain,
            read=read,
        )

    @classmethod
    def from_hub(
        cls,
        name: str,
        *,
        revision: str | None = None,
        batch_size: int = 32,
        threads: int = 4,
        explain: Path | None = None,
        read: Reader = content_of,
    ) -> Predictor:
        """Loads a model that `facefeat push` wrote to the Hugging Face Hub, and says of which commit it is.

        The first download is trusted; from then on the same name gives the same commit, and no file with other content
        (`weights_conversion.hub`). Nothing of it is executed.

        Args:
          name: `owner/name`.
          revision: a branch, a tag or a commit; None takes the commit that was downloaded first, or else `main`.
          batch_size: as in `Predictor`; so are `threads`, `explain` and `read`.
          threads: see there.
          explain: see there.
          read: see there.

        Raises:
          UserError: it can't be had, is not what was downloaded first, or is no model of this program.
        """
        import weights_conversion
        from weights_conversion.hub import HUB_FILE, fetch_hub_weights

        file = fetch_hub_weights(name, revision)
        metadata = weights_conversion.read_metadata(file)
        if EXPORTED not in metadata:
            raise UserError(f"{name}: its {HUB_FILE} was not written by `facefeat push`, and does not name its classes")
        found = carried(metadata, f"{name} ({HUB_FILE})")
        set_numerics(found.spec.dtype, found.spec.param_dtype, found.spec.matmul_precision)
        tensors = weights_conversion.read(file)
        weights_conversion.check_finite(tensors, file)
        return cls(
            weights_conversion.to_flax(tensors, found.spec.abstract(), source=name),
            found.spec,
            batch_size=batch_size,
            threads=threads,
            calibration=found.calibration,
            likeness=found.likeness,
            explain=explain,
            read=read,
        )

    def fingerprint(self) -> str:
        """Returns a hash of weights, preprocessing and calibration. The same hash means the same answers."""
        about: list[Any] = [self.spec.to_json(), {task: asdict(fitted) for task, fitted in self._calibration.items()}]
        if self.likeness is not None and self.likeness.heads:
            about.append(self.likeness.to_json())
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for leaf in jax.tree.leaves((self._params, self._batch_stats)):
            digest.update(jax.device_get(leaf).tobytes())
        return digest.hexdigest()

    def _answers(
        self, pixels: list[np.ndarray], sources: list[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        # Few shapes, so few compilations: the next power of two, up to the batch size; a row for each device.
        padded = self._placement.round_up(min(self._batch_size, 1 << (len(pixels) - 1).bit_length()))
        batch = np.stack(pixels + [pixels[0]] * (padded - len(pixels)))
        rows = jax.device_put(batch, self._placement.table)
        tasks = tuple(self.spec.classes)
        found = self._placement.in_turn(self._step(self._params, self._batch_stats, rows, tasks=tasks))
        found = {name: value[: len(pixels)] for name, value in jax.device_get(found).items()}
        classes = {task: probabilities(found[task] / self._calibration[task].temperature) for task in tasks}
        if self.explanations:
            self.explanations.write(sources, batch, classes)
        if self.likeness is None or not self.likeness.heads:
            return classes, {}
        return classes, {task: head.unlike(found[FEATURES]) for task, head in self.likeness.heads.items()}
