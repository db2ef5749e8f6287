"""The frozen prefix: what the stages below the trained ones make of each picture, computed once.

With frozen BatchNorm and unchanged pictures these stages are a fixed function. Their outputs take the place of the
pictures: on the device, or in the cache, where other runs from the same weights find them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data import feeds
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.pixels import ExampleRows, StoredRows, read_ahead
from facefeat_jax.data.placement import Placement
from facefeat_jax.forward import prepared
from facefeat_jax.models._values import Values
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.models.trunk import POOLED, Stages
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import Bar


def last_frozen(stages: Stages, trained: Iterable[str]) -> str:
    """Returns the stage before the first one that is trained; `POOLED` where none is.

    Args:
      stages: the trunk's `STAGES`.
      trained: its modules that are trained.

    Raises:
      UserError: the first stage is trained.
    """
    chosen, before = set(trained), None
    for name, modules in stages.items():
        if chosen & set(modules):
            if before is None:
                raise UserError(
                    f"--cache-prefix caches the outputs of the frozen stages, but {name}, the first stage, is trained; "
                    "remove it from --trainable, or give --no-cache-prefix"
                )
            return before
        before = name
    return POOLED


class Prefix:
    """The stages up to one of them, as a function of pictures.

    Attributes:
      until: the last of the stages, or `POOLED`.
      shape: shape of the output for one picture.
      dtype: dtype of the output.

    Args:
      graphdef: graph definition of the model in evaluation mode.
      params: as in `TrainState`.
      batch_stats: as in `TrainState`.
      spec: what the model is.
      dtype: dtype of the computation and of the stored outputs.
      until: see above.
      placement: the devices of this process.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        params: Values,
        batch_stats: Values,
        spec: ModelSpec,
        dtype: str,
        until: str,
        placement: Placement,
    ):
        def run(params: Values, batch_stats: Values, images: jax.Array) -> jax.Array:
            model = nnx.merge(graphdef, params, batch_stats, copy=True)
            pixels = prepared(placement.split(images), spec, dtype, None)
            return model.trunk(pixels) if until == POOLED else model.trunk(pixels, until=until)

        self.until = until
        self._modules = _modules_up_to(get_architecture(spec.trunk).stages, until)
        self._placement = placement
        self._params, self._batch_stats = params, batch_stats
        self._batch_size = placement.round_up(32 if placement.device.platform == "cpu" else 256)
        self._run = jax.jit(run)
        self._image_shape = (spec.image_size, spec.image_size, 3)
        made = jax.eval_shape(run, params, batch_stats, self._abstract_images())
        self.shape: tuple[int, ...] = made.shape[1:]
        self.dtype = np.dtype(made.dtype)

    def use(self, params: Values, batch_stats: Values) -> None:
        """Takes other weights from now on."""
        self._params, self._batch_stats = params, batch_stats

    def _abstract_images(self) -> jax.ShapeDtypeStruct:
        shape = (self._batch_size, *self._image_shape)
        return jax.ShapeDtypeStruct(shape, np.uint8, sharding=self._placement.table)

    def lower(self) -> jax.stages.Lowered:
        """Traces the program, for compiling it ahead."""
        return self._run.lower(self._params, self._batch_stats, self._abstract_images())

    def store(self, examples: Examples, examples_key: str) -> row_store.Rows:
        """Returns what the cache holds for examples.

        Args:
          examples: the pictures.
          examples_key: key of their pixels (`data.pixels.examples_key`).
        """
        digest = hashlib.sha256(f"prefix {self.until} {self.dtype} {examples_key}\n".encode())
        precision = jax.config.values["jax_default_matmul_precision"]
        digest.update(f"{jax.__version__} {self._placement.device.device_kind} {precision}\n".encode())
        for values in (self._params["trunk"], self._batch_stats["trunk"]):
            kept = {name: values[name] for name in self._modules if name in values}
            for path, value in jax.tree_util.tree_leaves_with_path(kept):
                digest.update(jax.tree_util.keystr(path).encode())
                digest.update(np.ascontiguousarray(jax.device_get(value)).tobytes())
        names = ", ".join(f"{split.source} {split.split}" for split in examples.splits)
        return row_store.Rows(
            key=digest.hexdigest()[:32],
            count=len(examples),
            shape=self.shape,
            dtype=self.dtype,
            what=f"{self.until} of {names}",
            chunk=self._batch_size,
        )

    def outputs(self, source: ExampleRows, ranges: Iterable[range], program: Any) -> Iterator[tuple[range, jax.Array]]:
        """Yields ranges of examples with what becomes of them, on the device; some run ahead.

        Args:
          source: their pictures.
          ranges: which ones, none longer than the batch.
          program: what `lower` compiles to.
        """
        running: deque[tuple[range, jax.Array]] = deque()
        for span, images in read_ahead(source, ranges):
            running.append((span, self._outputs_of_batch(images, program)))
            if len(running) > 2:
                yield running.popleft()
        yield from running

    def of(self, images: np.ndarray, program: Any) -> jax.Array:
        """Returns what becomes of pictures, uint8 `[n, size, size, 3]`.

        Args:
          images: one or more.
          program: what `lower` compiles to.
        """
        starts = range(0, len(images), self._batch_size)
        made = [self._outputs_of_batch(images[at : at + self._batch_size], program) for at in starts]
        return self._placement.in_turn(jnp.concatenate(made))

    def _outputs_of_batch(self, images: np.ndarray, program: Any) -> jax.Array:
        """Returns what becomes of pictures, as many as the batch or fewer."""
        n = len(images)
        if n < self._batch_size:
            images = np.concatenate([images, np.zeros((self._batch_size - n, *images.shape[1:]), np.uint8)])
        images = jax.device_put(images, self._placement.table)
        made = self._placement.in_turn(program(self._params, self._batch_stats, images))
        return made if n == self._batch_size else self._placement.in_turn(jax.lax.slice_in_dim(made, 0, n))

    def stored(
        self, examples: Examples, examples_key: str, source: ExampleRows, root: Path, program: Callable[[], Any]
    ) -> StoredRows:
        """Returns the outputs for all examples from the cache; computes them into it where they are not there.

        Args:
          examples: the pictures.
          examples_key: key of their pixels (`data.pixels.examples_key`).
          source: their pixels.
          root: folder of the stores.
          program: gives what `lower` compiles to, where it is needed.

        Raises:
          row_store.NoRoomError: the cache has no room for them.
        """
        rows = self.store(examples, examples_key)
        row_store.require_room(root, [rows])

        def produce(ranges: list[range]) -> Iterator[tuple[range, np.ndarray]]:
            return ((span, jax.device_get(values)) for span, values in self.outputs(source, ranges, program()))

        return StoredRows([row_store.open_or_fill(root, rows, produce)])

    def table(self, examples: Examples, source: ExampleRows, layout: feeds.Layout, program: Any) -> feeds.Table:
        """Returns the outputs for all examples on the device, computed anew: that is faster than to read them back.

        Args:
          examples: the pictures.
          source: their pixels.
          layout: the form of the table.
          program: what `lower` compiles to.
        """
        ranges = feeds.in_chunks(layout.own(), self._batch_size)
        names = ", ".join(f"{split.source} {split.split}" for split in examples.splits)
        with Bar(f"{self.until} of {names}", len(layout.own())) as bar:

            def counted() -> Iterator[tuple[range, jax.Array]]:
                for span, values in self.outputs(source, ranges, program):
                    yield span, values
                    bar.advance(len(span))

            table = feeds.fill_table(counted(), examples, layout)
            return jax.block_until_ready(table)


def _modules_up_to(stages: Stages, until: str) -> list[str]:
    modules: list[str] = []
    for name, members in stages.items():
        modules += members
        if name == until:
            break
    return modules
