"""Pictures that show what speaks for each head's answer, written beside predictions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from facefeat_jax.evaluation.explain import Explainer, strip
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.run_folder import write_file
from facefeat_jax.runs.spec import ModelSpec


class Explanations:
    """A folder with a picture for each prediction: what the model saw, and an overlay for each head.

    They are numbered in the order of the predictions, from 1, bad pictures left out: several files may have one name.

    Attributes:
      count: how many it has written.

    Args:
      folder: where they are written; it is made.
      model: the model, in evaluation mode.
      spec: what it is.
    """

    def __init__(self, folder: Path, model: MultiTaskModel, spec: ModelSpec):
        self._folder = folder
        self._explainer = Explainer(model, spec)
        self._classes = spec.classes
        self.count = 0

    def write(self, sources: Sequence[str], batch: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> None:
        """Writes those of a batch.

        Args:
          sources: names of the pictures.
          batch: as the model gets them, uint8 `[n, size, size, 3]`; those beyond `sources` fill the batch up.
          probabilities: per head `[len(sources), classes]`.

        Raises:
          UserError: one can't be written.
        """
        from PIL import Image

        maps = self._explainer.maps(batch, tuple(self._classes))
        for row, source in enumerate(sources):
            captions = {}
            for task, names in self._classes.items():
                best = int(probabilities[task][row].argmax())
                captions[task] = f"{task}: {names[best]} {probabilities[task][row, best]:.2f}"
            sheet = strip(batch[row], {task: maps[task][row] for task in captions}, captions)
            self.count += 1
            buffer = io.BytesIO()
            Image.fromarray(sheet).save(buffer, "PNG")
            stem = Path(source).stem.lstrip("#")[:80] or "picture"
            write_file(self._folder / f"{self.count:05}-{stem}.png", buffer.getvalue())
