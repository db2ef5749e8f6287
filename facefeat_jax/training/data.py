"""What a run trains and validates on, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from facefeat_jax.config import BatchConfig, DataConfig
from facefeat_jax.data.dataset import default_data_dir, open_split
from facefeat_jax.data.examples import Examples, open_halves
from facefeat_jax.data.index_stream import IndexStream
from facefeat_jax.system.errors import UserError


class RunData(NamedTuple):
    """The data that a run trains and validates on.

    Attributes:
      classes: class names of each task.
      training: the pictures to train on.
      validation: the pictures to validate on.
      stream: which training pictures each step takes.
    """

    classes: dict[str, tuple[str, ...]]
    training: Examples
    validation: Examples
    stream: IndexStream


def open_data(config: DataConfig, batches: BatchConfig, *, seed: int, padded_size: int | None = None) -> RunData:
    """Opens the data sets of a config. The same arguments give the same batches.

    Args:
      config: the `data` of the run's config.
      batches: its `batches`.
      seed: its `seed`.
      padded_size: what batches are padded to; the default is the batch size.

    Raises:
      UserError: a source is not prepared, its classes don't fit, or no source labels some task.
    """
    data_dir = config.data_dir or default_data_dir()
    classes = _class_names(config, data_dir)
    training, validation = open_halves(config.sources, data_dir, classes, limit=config.limit, disjoint=config.disjoint)
    stream = IndexStream(
        training,
        tasks=config.tasks,
        schedule=batches.schedule,
        batch_size=batches.batch_size,
        epochs=batches.epochs,
        seed=seed,
        balance=batches.balance,
        padded_size=padded_size,
    )
    return RunData(classes, training, validation, stream)


def _class_names(config: DataConfig, data_dir: Path) -> dict[str, tuple[str, ...]]:
    """Returns the class names of each task of the config, from the first of its sources that labels the task.

    Raises:
      UserError: a source is not prepared, or none labels some task.
    """
    splits = [open_split(source, "train", data_dir) for source in config.sources]
    classes = {}
    for task in config.tasks:
        named = [split.classes[task] for split in splits if task in split.classes]
        if not named:
            raise UserError(
                f"none of the sources {', '.join(config.sources)} labels {task!r}; add one that does, or drop the task"
            )
        classes[task] = named[0]
    return classes
