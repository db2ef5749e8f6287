"""What a run trains and validates on: which pictures, in which order, and the feeds that bring them to the step.

The way of a batch: `dataset.Split` reads records, `examples.Examples` numbers them across data sets, `index_stream`
says which numbers each step takes, `pixels` decodes them or finds them in the cache (`_row_store`), and `feeds` puts
batches on the devices. With `--cache-prefix`, the outputs of the frozen stages (`_prefix`) take the pictures' place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from facefeat_jax.config import BatchConfig, DataConfig, PipelineConfig
from facefeat_jax.data import feeds
from facefeat_jax.data._decoding_process import DecodingProcess
from facefeat_jax.data.dataset import default_data_dir, open_split
from facefeat_jax.data.examples import Examples, open_halves
from facefeat_jax.data.index_stream import IndexStream
from facefeat_jax.data.pixels import ExampleRows, PixelFormat, are_packed, open_rows, read_ahead
from facefeat_jax.data.placement import Placement
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import format_size
from facefeat_jax.training._prefix import Prefix

# Of the free memory of a device, what its rows may take: the rest is the step's.
_DEVICE_SHARE = 0.6
# On CPU the device's memory is the host's, and rows that are mapped from a file take none: only small ones are copied.
_CPU_ROOM = 512 * 2**20


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
    """Opens the data sets of a config. No picture is read. The same arguments give the same batches.

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


class Inputs:
    """The feeds of a run: planned first, so that programs can be compiled while the pictures are read.

    Attributes:
      feed: `stream` or `device`.
      pixels: how picture files become rows.
      training: form of the training feed's arrays.
      validation: form of the validation feed's arrays.
      table_bytes: what the pictures take on each device; 0 where they are on the host.

    Args:
      pipeline: the `pipeline` of the run's config, every choice but the feed made.
      pixels: how picture files become rows.
      data: the pictures.
      prefix: the stages whose outputs take the pictures' place, or None.
      placement: the devices.

    Raises:
      UserError: the feed that is asked for has no room on the device.
    """

    def __init__(
        self, pipeline: PipelineConfig, pixels: PixelFormat, data: RunData, prefix: Prefix | None, placement: Placement
    ):
        self._pipeline, self.pixels, self._data, self._prefix = pipeline, pixels, data, prefix
        shape = prefix.shape if prefix else pixels.shape
        dtype = prefix.dtype if prefix else np.dtype(np.uint8)
        counts = [len(data.training), len(data.validation)]
        row_bytes = math.prod(shape) * dtype.itemsize
        self.feed, self._why = choose_feed(pipeline.feed, counts, row_bytes, placement)
        if not placement.least(self.feed == "device"):
            self.feed = "stream"  # on the devices of another process there is less room
        self.training, self.validation = (
            feeds.Layout(self.feed, count, shape, dtype, tuple(data.classes), placement) for count in counts
        )
        rows = sum(placement.round_up(count) for count in counts) // placement.num_devices
        self.table_bytes = rows * row_bytes if self.feed == "device" else 0

    def open(self, decoding: DecodingProcess | None = None) -> tuple[feeds.Feed, feeds.Feed]:
        """Reads, decodes and computes what is not at hand yet; returns the feeds of training and validation.

        Args:
          decoding: a process that decodes these pictures into the cache; it is waited for.

        Raises:
          BadImageError: a picture does not decode; the message names it.
          UserError: the cache has no room or can't be written to, where the config insists on it.
        """
        say(f"feed: {self.feed} ({self._why})")
        if decoding is not None:
            decoding.wait([self._data.training, self._data.validation], self.pixels)
        return self._open(self._data.training, self.training), self._open(self._data.validation, self.validation)

    def _open(self, examples: Examples, layout: feeds.Layout) -> feeds.Feed:
        prefix, pipeline = self._prefix, self._pipeline
        pictures, rows, table = self._pictures(examples), None, None
        if self.feed == "stream":
            rows = prefix.stored(examples, self.pixels, pictures) if prefix else pictures
        elif prefix:
            # Computed anew: that is faster than to read them back from the cache.
            read, title = partial(prefix.outputs, pictures), prefix.describe(examples)
            table = feeds.fill_table(read, examples, layout, title=title, chunk=prefix.batch_size)
        else:
            table = feeds.fill_table(partial(read_ahead, pictures), examples, layout, title="to the device")
        return feeds.Feed(
            examples,
            layout.placement,
            rows,
            table,
            threads=pipeline.feed_threads,
            # Counted in calls there: many steps a call would fill the host's memory.
            prefetch=max(1, pipeline.feed_prefetch // pipeline.steps_per_call),
        )

    def _pictures(self, examples: Examples) -> ExampleRows:
        packed = self._pipeline.packed
        if self._prefix and packed == "auto" and not are_packed(examples, self.pixels):
            packed = "off"  # a prefix wants each picture once
        return open_rows(examples, self.pixels, packed)


def choose_feed(
    asked: Literal["auto", "stream", "device"], counts: Sequence[int], row_bytes: int, placement: Placement
) -> tuple[feeds.FeedName, str]:
    """Chooses the feed by the memory that is free on the devices.

    Args:
      asked: what the config says.
      counts: number of rows of each table.
      row_bytes: size of a row.
      placement: the devices.

    Returns:
      The feed, and why in words.

    Raises:
      UserError: `device` is asked for and the rows don't fit.
    """
    needed = math.ceil(sum(counts) / placement.num_devices) * row_bytes
    device = placement.device
    each = " on each device" if placement.num_devices > 1 else ""
    need = f"the pictures take {format_size(needed)}{each}"
    if device.platform == "cpu":
        room, why = _CPU_ROOM, f"of which up to {format_size(_CPU_ROOM)} are copied"
    else:
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
        room = int(_DEVICE_SHARE * free)
        why = f"{format_size(free)} are free on {device.device_kind}, of which they may take {_DEVICE_SHARE:.0%}"
    if asked == "stream":
        return "stream", "as asked"
    if asked == "device":
        if device.platform != "cpu" and needed > room:
            raise UserError(f"--feed device does not fit: {need}, {why}; give --feed stream")
        return "device", "as asked"
    return ("device" if needed <= room else "stream"), f"{need}, {why}"
