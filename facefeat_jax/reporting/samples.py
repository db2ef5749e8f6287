"""Pictures of the training data for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from facefeat_jax.data.examples import Examples
    from facefeat_jax.data.pixels import PixelFormat


@dataclass(frozen=True)
class Sample:
    """A picture to show in the report."""

    image: np.ndarray  # uint8 `[height, width, 3]`
    caption: str  # what stands under it, such as its labels


def training_samples(
    examples: Examples,
    classes: Mapping[str, Sequence[str]],
    *,
    pixels: PixelFormat,
    number: int = 24,
) -> list[Sample]:
    """Returns pictures spread evenly over the data, as the model gets them, with their labels as captions.

    Where sources label different heads, each kind of picture gets its share, however few there are of it.

    Args:
      examples: the data.
      classes: class names of each task, as in `ModelSpec`.
      pixels: how files become the model's pixels.
      number: how many; fewer where there are not as many.
    """
    known = np.stack([examples.labels[task] >= 0 for task in classes], axis=1)
    patterns = np.unique(known, axis=0)[::-1]
    samples = []
    for index in _spread([np.flatnonzero((known == pattern).all(axis=1)) for pattern in patterns], number):
        labels = {task: int(examples.labels[task][index]) for task in classes}
        caption = ", ".join(classes[task][label].replace("_", " ") for task, label in labels.items() if label >= 0)
        samples.append(Sample(pixels.read(examples, index), caption or "no label"))
    return samples


def _spread(rows: Sequence[np.ndarray], count: int) -> list[int]:
    """Returns `count` numbers, as many as possible from each of the lists, spread evenly over it."""
    chosen: list[int] = []
    # The shortest first: what it can't give, the others do.
    for left, of_kind in zip(range(len(rows), 0, -1), sorted(rows, key=len), strict=True):
        share = min(len(of_kind), (count - len(chosen)) // left)
        chosen += of_kind[np.linspace(0, len(of_kind) - 1, share).astype(int)].tolist()
    return sorted(chosen)
