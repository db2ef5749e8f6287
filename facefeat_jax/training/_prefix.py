"""The frozen prefix: what the stages below the trained ones make of each picture, computed once.

With frozen BatchNorm and unchanged pictures these stages are a fixed function. Their outputs take the place of the
pictures: on the device, or in the cache, where other runs from the same weights find them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from flax import nnx

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.feeds import filled_up
from facefeat_jax.data.pixels import ExampleRows, PixelFormat, examples_key, read_ahead
from facefeat_jax.data.placement import Placement
from facefeat_jax.forward import prepared
from facefeat_jax.models._values import Values
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.models.trunk import POOLED, Stages
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.programs import Programs

_PROGRAM = "prefix"


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
      batch_size: how many pictures are computed at a time.

    Args:
      graphdef: graph definition of the model in evaluation mode.
      params: as in `TrainState`; they, and those of `batch_stats`, may be shapes until `use` is called.
      batch_stats: as in `TrainState`.
      spec: what the model is.
      dtype: dtype of the computation and of the stored outputs.
      until: see above.
      placement: the devices of this process.
      programs: compiles it; see `compile_ahead`.
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
        programs: Programs,
    ):
        def run(params: Values, batch_stats: Values, images: jax.Array) -> jax.Array:
            model = nnx.merge(graphdef, params, batch_stats, copy=True)
            pixels = prepared(placement.split(images), spec, dtype, None)
            return model.trunk(pixels) if until == POOLED else model.trunk(pixels, until=until)

        self.until = until
        self._modules = _modules_up_to(get_architecture(spec.trunk).stages, until)
        self._placement, self._programs = placement, programs
        self._params, self._batch_stats = params, batch_stats
        self.batch_size = placement.round_up(32 if placement.device.platform == "cpu" else 256)
        self._run = jax.jit(run)
        self._image_shape = (spec.image_size, spec.image_size, 3)
        made = jax.eval_shape(run, params, batch_stats, self._abstract_images())
        self.shape: tuple[int, ...] = made.shape[1:]
        self.dtype = np.dtype(made.dtype)

    def use(self, params: Values, batch_stats: Values) -> None:
        """Takes other weights from now on."""
        self._params, self._batch_stats = params, batch_stats

    def _abstract_images(self) -> jax.ShapeDtypeStruct:
        shape = (self.batch_size, *self._image_shape)
        return jax.ShapeDtypeStruct(shape, np.uint8, sharding=self._placement.table)

    def compile_ahead(self) -> None:
        """Begins to compile the program, which the methods below wait for."""
        shapes = jax.tree.map(
            lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=value.sharding),
            (self._params, self._batch_stats),
        )
        self._programs.add(_PROGRAM, lambda: self._run.lower(*shapes, self._abstract_images()), "the frozen stages")

    def describe(self, examples: Examples) -> str:
        """Returns in words what is computed: "layer3 of fairface train"."""
        return f"{self.until} of {', '.join(f'{split.source} {split.split}' for split in examples.splits)}"

    def outputs(self, source: ExampleRows, ranges: Iterable[range]) -> Iterator[tuple[range, jax.Array]]:
        """Yields ranges of examples with what becomes of them, on the device, filled up to the batch; some run ahead.

        Args:
          source: their pictures, uint8 `[n, size, size, 3]`.
          ranges: which ones, none longer than `batch_size`.
        """
        running: deque[tuple[range, jax.Array]] = deque()
        for span, images in read_ahead(source, ranges):
            running.append((span, self._outputs_of_batch(images)))
            if len(running) > 2:
                yield running.popleft()
        yield from running

    def of(self, images: np.ndarray) -> jax.Array:
        """Returns what becomes of one or more pictures, uint8 `[n, size, size, 3]`: `[n, *shape]`."""
        starts = range(0, len(images), self.batch_size)
        made = [jax.device_get(self._outputs_of_batch(images[at : at + self.batch_size])) for at in starts]
        return jax.device_put(np.concatenate(made)[: len(images)])

    def _outputs_of_batch(self, images: np.ndarray) -> jax.Array:
        """Returns what becomes of pictures, as many as the batch or fewer, filled up to the batch."""
        images = filled_up(images, self.batch_size)
        images = jax.device_put(images, self._placement.table)
        program = self._programs.get(_PROGRAM)
        return self._placement.in_turn(program(self._params, self._batch_stats, images))

    def stored(self, examples: Examples, pixels: PixelFormat, source: ExampleRows) -> row_store.Store:
        """Returns the outputs for all examples from the cache; computes them into it where they are not there.

        Args:
          examples: the pictures.
          pixels: how their files become rows.
          source: those rows.

        Raises:
          row_store.NoRoomError: the cache has no room for them.
          UserError: the cache can't be written to.
        """
        rows = row_store.Rows(
            key=self._key(examples_key(examples, pixels)),
            count=len(examples),
            shape=self.shape,
            dtype=self.dtype,
            what=self.describe(examples),
            chunk=self.batch_size,
        )

        def produce(ranges: list[range]) -> Iterator[tuple[range, np.ndarray]]:
            return ((span, jax.device_get(made)[: len(span)]) for span, made in self.outputs(source, ranges))

        try:
            (store,) = row_store.open_all([(rows, produce)])
        except row_store.NoRoomError as error:
            raise row_store.NoRoomError(f"{error}; or give --no-cache-prefix") from error
        return store

    def _key(self, pictures: str) -> str:
        """Returns the store's key, of all that the outputs depend on; `pictures` is `examples_key`'s."""
        digest = hashlib.sha256(f"prefix {self.until} {self.dtype} {pictures}\n".encode())
        precision = jax.config.values["jax_default_matmul_precision"]
        digest.update(f"{jax.__version__} {self._placement.device.device_kind} {precision}\n".encode())
        for values in (self._params["trunk"], self._batch_stats["trunk"]):
            kept = {name: values[name] for name in self._modules if name in values}
            for path, value in jax.tree_util.tree_leaves_with_path(kept):
                digest.update(jax.tree_util.keystr(path).encode())
                digest.update(np.ascontiguousarray(jax.device_get(value)).tobytes())
        return digest.hexdigest()[:32]


def _modules_up_to(stages: Stages, until: str) -> list[str]:
    modules: list[str] = []
    for name, members in stages.items():
        modules += members
        if name == until:
            break
    return modules
