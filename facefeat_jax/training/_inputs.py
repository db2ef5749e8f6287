"""What a run trains and validates on: pictures or the outputs of frozen stages, on the host or on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from facefeat_jax.config import PipelineConfig
from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data import feeds
from facefeat_jax.data._row_store import store_folder
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.pixels import (
    DecodedRows,
    ExampleRows,
    PixelFormat,
    are_packed,
    examples_key,
    open_rows,
    read_ahead,
)
from facefeat_jax.data.placement import Placement
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.training._prefix import Prefix


class Layouts(NamedTuple):
    """The form of both feeds.

    Attributes:
      training: layout of the training pictures.
      validation: layout of the validation pictures.
    """

    training: feeds.Layout
    validation: feeds.Layout


class Inputs:
    """The feeds of a run: planned first, so that programs can be compiled while the pictures are read.

    Attributes:
      feed: `stream` or `device`.
      layouts: the form of the arrays.
      table_bytes: what pictures that lie on each device take; 0 where they are on the host.

    Args:
      pipeline: the `pipeline` of the run's config, every choice but the feed made.
      tasks: the tasks that are trained.
      pixels: how picture files become rows.
      training: the pictures to train on.
      validation: the pictures to validate on.
      prefix: the stages whose outputs take the pictures' place, or None.
      placement: the devices.

    Raises:
      UserError: the feed that is asked for has no room on the device.
    """

    def __init__(
        self,
        pipeline: PipelineConfig,
        tasks: Sequence[str],
        pixels: PixelFormat,
        training: Examples,
        validation: Examples,
        prefix: Prefix | None,
        placement: Placement,
    ):
        self._pipeline = pipeline
        self._examples = (training, validation)
        self._prefix = prefix
        self._placement = placement
        self._pixels = pixels
        shape = prefix.shape if prefix else pixels.shape
        dtype = prefix.dtype if prefix else np.dtype(np.uint8)
        counts = [len(examples) for examples in self._examples]
        row_bytes = math.prod(shape) * dtype.itemsize
        self.feed, self.why = feeds.choose(pipeline.feed, counts, row_bytes, placement)
        if not placement.least(self.feed == "device"):
            self.feed = "stream"  # on the devices of another process there is less room
        self.layouts = Layouts(
            *(feeds.Layout(self.feed, count, shape, dtype, tuple(tasks), placement) for count in counts)
        )
        rows = sum(placement.round_up(count) for count in counts) // placement.num_devices
        self.table_bytes = rows * row_bytes if self.feed == "device" else 0

    def warm_up(self) -> None:
        """Has what reads pictures loaded; to be called before other threads trace programs.

        TFDS loads parts of itself at the first read, and while it does so Python's import is replaced for all threads:
        what they import meanwhile is broken.
        """
        for examples, layout in zip(self._examples, self.layouts, strict=True):
            if not are_packed(examples, self._pixels):
                examples.read(min(layout.own().start, len(examples) - 1))  # one that it reads anyway

    def open(self, prefix_program: Any) -> tuple[feeds.Feed, feeds.Feed]:
        """Reads, decodes and computes what is not at hand yet; returns the feeds of training and validation.

        Args:
          prefix_program: gives what `Prefix.lower` compiles to; not called without a prefix.

        Raises:
          BadImageError: a picture does not decode; the message names it.
          UserError: the cache has no room or can't be written to, where the config insists on it.
        """
        say(f"feed: {self.feed} ({self.why})")
        training, validation = (
            self._open(examples, layout, prefix_program)
            for examples, layout in zip(self._examples, self.layouts, strict=True)
        )
        return training, validation

    def _open(self, examples: Examples, layout: feeds.Layout, prefix_program: Any) -> feeds.Feed:
        feed = partial(
            feeds.Feed,
            examples,
            self._placement,
            threads=self._pipeline.feed_threads,
            # Counted in calls there: many steps a call would fill the host's memory.
            prefetch=max(1, self._pipeline.feed_prefetch // self._pipeline.steps_per_call),
        )
        if self._prefix is None:
            rows = open_rows(examples, self._pixels, self._pipeline.packed)
            return feed(None, self._filled(examples, rows, layout)) if self.feed == "device" else feed(rows, None)
        source = self._source(examples)
        if self.feed == "device":
            return feed(None, self._prefix.table(examples, source, layout, prefix_program()))
        try:
            key = examples_key(examples, self._pixels)
            return feed(self._prefix.stored(examples, key, source, store_folder(), prefix_program), None)
        except row_store.NoRoomError as error:
            raise row_store.NoRoomError(f"{error}; or give --no-cache-prefix") from error

    def _source(self, examples: Examples) -> ExampleRows:
        """Returns the pictures for a prefix, which wants each of them once: no need to pack them for that."""
        if self._pipeline.packed == "on" or (self._pipeline.packed == "auto" and are_packed(examples, self._pixels)):
            return open_rows(examples, self._pixels, self._pipeline.packed)
        return DecodedRows(examples, self._pixels)

    def _filled(self, examples: Examples, rows: ExampleRows, layout: feeds.Layout) -> feeds.Table:
        chunks = feeds.in_chunks(layout.own(), feeds.sent_at_a_time(layout.row_bytes))
        with Bar("to the device", len(layout.own())) as bar:

            def counted() -> Iterator[tuple[range, np.ndarray]]:
                for span, values in read_ahead(rows, chunks):
                    yield span, values
                    bar.advance(len(span))

            return feeds.fill_table(counted(), examples, layout)
