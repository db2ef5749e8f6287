"""Feeds: from the index stream to what a call of the step takes.

A call takes one step or several. Two feeds give the same batches, bit for bit: `stream` puts them together on the host
and sends them ahead of their use, `device` has all rows on the device and sends only their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from facefeat_jax.data.examples import UNKNOWN, Examples
from facefeat_jax.data.index_stream import Call, IndexBatch
from facefeat_jax.data.placement import Placement
from facefeat_jax.system.progress import Bar

if TYPE_CHECKING:
    from facefeat_jax.data.pixels import ExampleRows  # with Pillow, which those that only draw figures don't need

FeedName = Literal["stream", "device"]

# What is sent to the device at a time when a table is filled.
_SENT_BYTES = 64 * 2**20


class Batches(NamedTuple):
    """The batches of a call; the first axis is the step.

    Attributes:
      rows: `[steps, batch, *row]`, or None where `indices` say which they are.
      indices: `[steps, batch]`, int32, numbers of the examples, or None where `rows` are given.
      labels: per task `[steps, batch]`, int32, `UNKNOWN` for padding and where there is no label; empty with `indices`.
      mask: `[steps, batch]`, bool, false for padding.
    """

    rows: Any
    indices: Any
    labels: dict[str, Any]
    mask: Any


class Table(NamedTuple):
    """All examples on the device; what the numbers of a `device` feed stand for."""

    rows: Any  # `[n, *row]`; n may be more than there are examples, so that it can be split over the devices
    labels: dict[str, Any]  # per task `[n]`, int32


def take(table: Table | None, batches: Batches, tasks: Sequence[str]) -> tuple[Any, dict[str, Any], Any]:
    """Returns rows, labels and mask of batches, inside jit: those at hand, or those that the indices stand for.

    Args:
      table: all examples, or None where `batches` has rows.
      batches: of a call, or of one of its steps.
      tasks: the labels that are wanted from a table.

    Returns:
      `[..., batch, *row]` in the table's dtype (uint8 for pictures), per task `[..., batch]` int32 (`UNKNOWN` for
      padding and where there is no label), and `[..., batch]` bool, false for padding.
    """
    if table is None:
        return batches.rows, batches.labels, batches.mask

    def chosen(values: jax.Array) -> jax.Array:
        return values.at[batches.indices].get(mode="promise_in_bounds")

    labels = {task: jnp.where(batches.mask, chosen(table.labels[task]), UNKNOWN) for task in tasks}
    return chosen(table.rows), labels, batches.mask


@dataclass(frozen=True)
class Layout:
    """The form of a feed's arrays, known before any picture is read: what programs are compiled for."""

    feed: FeedName  # `stream` or `device`
    count: int  # number of examples
    row_shape: tuple[int, ...]  # shape of one row
    row_dtype: np.dtype  # dtype of its numbers
    tasks: tuple[str, ...]  # the tasks that have labels
    placement: Placement  # the devices

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return math.prod(self.row_shape) * self.row_dtype.itemsize

    def own(self) -> range:
        """Returns the numbers of the examples that lie on this process's devices, where they lie on devices."""
        own = self.placement.share(self.placement.round_up(self.count))
        return range(own.start, max(own.start, min(own.stop, self.count)))

    def batches(self, call: Call, batch_size: int) -> Batches:
        """Returns shapes, types and placement of a call's batches."""
        lead = (call.num_steps, batch_size)
        abstract = partial(jax.ShapeDtypeStruct, sharding=self.placement.batches)
        if self.feed == "device":
            return Batches(None, abstract(lead, np.int32), {}, abstract(lead, np.bool_))
        labels = {task: abstract(lead, np.int32) for task in call.tasks}
        return Batches(abstract((*lead, *self.row_shape), self.row_dtype), None, labels, abstract(lead, np.bool_))

    def table(self) -> Table | None:
        """Returns shapes, types and placement of the table; None where the feed has none."""
        if self.feed != "device":
            return None
        n = self.placement.round_up(self.count)
        abstract = partial(jax.ShapeDtypeStruct, sharding=self.placement.table)
        labels = {task: abstract((n,), np.int32) for task in self.tasks}
        return Table(abstract((n, *self.row_shape), self.row_dtype), labels)


@dataclass(frozen=True)
class Feed:
    """Where the batches of a run come from.

    Attributes:
      examples: the labels.
      placement: the devices.
      rows: the rows on the host; None where there is a table.
      table: the rows and labels on the device, or None.
      threads: how many calls are put together at a time.
      prefetch: how many are held ready.
    """

    examples: Examples
    placement: Placement
    rows: ExampleRows | None
    table: Table | None
    threads: int = 4
    prefetch: int = 8

    def __call__(self, steps: Any, calls: Sequence[Call]) -> Iterator[Batches]:
        """Yields the batches of each call, on the device, some ahead of their use.

        Args:
          steps: the `IndexBatch` of each step, by its number.
          calls: which steps are wanted.

        Raises:
          BadImageError: from the iterator, naming the picture that does not decode.
        """
        # Here, not above: `Batches` is all that predicting needs of this module, and is installed without grain.
        import grain
        from absl import flags

        # grain reads absl flags, which are only parsed inside an absl app.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        if not calls:
            return iter(())

        def load(call: Call) -> Batches:
            wanted = [shared(steps[step], self.placement) for step in range(call.first_step, call.end_step)]
            return batches_of(wanted, self.rows, self.examples)

        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=max(self.prefetch, self.threads))
        dataset = grain.MapDataset.source(calls).map(load).to_iter_dataset(options)
        if self.placement.is_shared:
            return iter(dataset.map(lambda batches: self.placement.join(batches, self.placement.batches)))
        # The transfer of the next ones goes on while the device computes.
        sent = grain.experimental.device_put(dataset, self.placement.batches, cpu_buffer_size=1, device_buffer_size=2)
        return iter(sent)


def shared(batch: IndexBatch, placement: Placement) -> IndexBatch:
    """Returns the part of a batch that lies on this process's devices: it reads no other pictures."""
    own = placement.share(len(batch.indices))
    return IndexBatch(batch.tasks, batch.indices[own], batch.mask[own])


def batches_of(wanted: Sequence[IndexBatch], rows: ExampleRows | None, examples: Examples) -> Batches:
    """Returns the batches of some steps as numpy arrays `[steps, batch, ...]`.

    Args:
      wanted: the numbers of each step, all of one size and of the same tasks.
      rows: the rows on the host; None for the numbers of their examples alone.
      examples: the labels.

    Raises:
      BadImageError: a picture does not decode; the message names it.
    """
    indices = np.stack([batch.indices for batch in wanted])
    mask = np.stack([batch.mask for batch in wanted])
    if rows is None:
        return Batches(None, indices.astype(np.int32), {}, mask)
    labels = {
        task: np.where(mask, examples.labels[task][indices], UNKNOWN).astype(np.int32) for task in wanted[0].tasks
    }
    # Padding repeats the first picture of its batch, which need not be decoded again for it.
    real = rows.take(indices[mask])
    if mask.all():
        return Batches(real.reshape(*indices.shape, *rows.shape), None, labels, mask)
    if not mask.any(axis=1).all():  # a process may have nothing but padding of a short batch
        rows_of = np.zeros((*indices.shape, *rows.shape), rows.dtype)
        rows_of[mask] = real
        return Batches(rows_of, None, labels, mask)
    places = np.cumsum(mask.reshape(-1)).reshape(mask.shape) - 1
    return Batches(real[np.where(mask, places, places[:, :1])], None, labels, mask)


def fill_table(
    read: Callable[[list[range]], Iterable[tuple[range, Any]]],
    examples: Examples,
    layout: Layout,
    *,
    title: str,
    chunk: int | None = None,
) -> Table:
    """Returns all examples on the device.

    Args:
      read: gives ranges of examples with their rows, in order; on the host or on this process's devices. What follows
        a range's rows is left out.
      examples: the labels.
      layout: the form of the table.
      title: title of the progress bar.
      chunk: how many rows are read and sent at a time; the default is 64 MiB of them.
    """
    described, placement = layout.table(), layout.placement
    assert described is not None
    n = described.rows.shape[0]
    own, numbers = placement.share(n), layout.own()
    chunk = chunk or max(1, _SENT_BYTES // max(layout.row_bytes, 1))

    together = _on_host if placement.device.platform == "cpu" else _on_device
    empty = jax.ShapeDtypeStruct((own.stop - own.start, *layout.row_shape), described.rows.dtype)
    with Bar(title, len(numbers)) as bar:

        def parts() -> Iterator[tuple[int, int, Any]]:
            for span, values in read([numbers[at : at + chunk] for at in range(0, len(numbers), chunk)]):
                yield span.start - own.start, len(span), values
                bar.advance(len(span))

        rows = jax.block_until_ready(together(parts(), empty, chunk, placement.local))
    labels = {
        task: placement.join(
            np.pad(examples.labels[task], (0, n - len(examples)), constant_values=UNKNOWN)[own], placement.table
        )
        for task in layout.tasks
    }
    return Table(placement.join_table(rows), labels)


def _on_host(
    parts: Iterable[tuple[int, int, Any]], empty: jax.ShapeDtypeStruct, chunk: int, placement: Placement
) -> jax.Array:
    """Returns the table of rows that come with their place and number, put together before it goes to the device.

    On CPU, where both are one memory: the programs of `_on_device` would be compiled first.
    """
    rows = np.zeros(empty.shape, empty.dtype)
    for first, count, values in parts:
        rows[first : first + count] = jax.device_get(values)[:count]
    return jax.device_put(rows, placement.table)


def _on_device(
    parts: Iterable[tuple[int, int, Any]], empty: jax.ShapeDtypeStruct, chunk: int, placement: Placement
) -> jax.Array:
    """Returns what `_on_host` does, put together on the device: it is never on the host as a whole."""
    rows: jax.Array | None = None
    for first, count, values in parts:
        if rows is not None and isinstance(values, np.ndarray):  # the last one is of another length
            values = filled_up(values, chunk)
        sent = jax.device_put((values, np.int32(first), np.int32(count)))
        begun = partial(_begin, size=len(empty), sharding=placement.table) if rows is None else partial(_put, rows)
        rows = placement.in_turn(begun(*sent))
    if rows is None:  # a process may have nothing but padding
        rows = jax.device_put(np.zeros(empty.shape, empty.dtype), placement.table)
    return rows


def filled_up(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns rows `[n, ...]` with zeros behind them, `count` in all: programs are compiled for one length."""
    if len(rows) >= count:
        return rows
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


@partial(jax.jit, static_argnames=("size", "sharding"))
def _begin(chunk: jax.Array, first: jax.Array, count: jax.Array, *, size: int, sharding: NamedSharding) -> jax.Array:
    """Returns a table of so many rows with the first ones in it."""
    zeros = jnp.zeros((size, *chunk.shape[1:]), chunk.dtype)
    return _written(jax.lax.with_sharding_constraint(zeros, sharding), chunk, first, count)


@partial(jax.jit, donate_argnums=0)
def _put(table: jax.Array, chunk: jax.Array, first: jax.Array, count: jax.Array) -> jax.Array:
    return _written(table, chunk, first, count)


def _written(table: jax.Array, chunk: jax.Array, first: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the table with the first `count` rows of a chunk written into it from the place `first` on."""
    number = jnp.arange(len(chunk), dtype=jnp.int32)
    place = jnp.where(number < count, first + number, len(table))  # outside, where nothing is written
    return table.at[place].set(chunk, mode="drop", indices_are_sorted=True)
