"""The two roofs of this machine, and how near to them each group of layers and the whole steps come.

    python scripts/lab/measure_roofs.py --out runs/roofs.jsonl      # a GPU: bfloat16, 224 px
    python scripts/lab/measure_roofs.py --dtype float32 --size 64 --batches 8 32 --matmul 1024 --copy-mib 64  # a CPU

The roof of arithmetic is a large product, the roof of memory a large copy. A group's floor is the longer of the times
that its products would take at the one, and their operands and results at the other, each read or written once:
normalisation, ReLU and addition would cost nothing if all were fused into them. The share is the floor over the time
measured. Every row is on disk (`--out`) before the next is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarking.flops import count, product_flops, product_numbers
from benchmarking.journal import Lines
from common import run_command_line
from facefeat_jax.benchmarking import computing
from facefeat_jax.benchmarking.measure import Measurement, repeated
from facefeat_jax.factory import create_model
from facefeat_jax.models._values import Values, split_values
from facefeat_jax.models.counting import plain_convolutions
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say
from facefeat_jax.system.runtime import start_up
from measuring import show

_TASK = "gender"
_PRECISIONS = {"float32": "float32", "bfloat16": "bf16"}
COLUMNS = ("what", "batch", "images/s", "ms", "floor, arithmetic", "floor, memory", "share", "of TFLOP/s", "of GB/s")


@dataclass(frozen=True)
class Roofs:
    """What this machine can do."""

    flops: float  # a second
    num_bytes: float  # read and written, a second


@dataclass(frozen=True)
class Cost:
    """What something takes at least."""

    flops: float
    num_bytes: float


@dataclass(frozen=True)
class Arguments:
    """Measures the roofs and the shares."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation."""
    size: int = 224
    """Side of the pictures, in pixels."""
    batches: tuple[int, ...] = (32, 128, 256, 512, 1024)
    """Pictures in a batch."""
    seconds: float = 0.5
    """How long a round takes."""
    rounds: int = 3
    """Of each; the fastest counts."""
    matmul: int = 8192
    """Rows and columns of the product that is the roof of arithmetic."""
    copy_mib: int = 2048
    """Size of the copy that is the roof of memory."""
    groups: bool = True
    """Measure the groups of layers too, not only the whole steps."""
    out: Path | None = None
    """File to which every row is added."""

    def run(self) -> int:
        start_up()
        journal = Lines(self.out) if self.out else None
        precision = _PRECISIONS[self.dtype]
        settings = {"precision": precision, "size": self.matmul, "round_seconds": self.seconds}
        product = computing.matmul(settings)
        flops = product.about["flops_per_call"] * self._rate(product, "calls")
        roofs = Roofs(flops, 2 * self.copy_mib * 2**20 * self._rate(_copy(self.copy_mib, self.seconds), "calls"))
        if journal:
            journal.write("roofs", device=str(jax.devices()[0].device_kind), dtype=self.dtype, **vars(roofs))
        say(f"roofs: {roofs.flops / 1e12:.4g} TFLOP/s, {roofs.num_bytes / 1e9:.4g} GB/s")
        rows = []
        for what, batch, cost, measure in self._measured():
            try:
                rate = self._rate(measure(), "images")
            except Exception as error:  # memory runs out at some batch size; the others are measured
                say(f"{what}, batch {batch}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            row = _row(what, batch, rate, cost, roofs)
            if journal:
                journal.write("row", row=dict(zip(COLUMNS, row, strict=True)))
            say(" | ".join(row))
            rows.append(row)
        print(f"{roofs.flops / 1e12:.4g} TFLOP/s, {roofs.num_bytes / 1e9:.4g} GB/s, {jax.devices()[0].device_kind}\n")
        show(__file__, COLUMNS, rows)
        return 0

    def _rate(self, measurement: Measurement, what: str) -> float:
        found = [measurement.round() for _ in range(self.rounds)]
        return max(one[what] / one["seconds"] for one in found)

    def _measured(self) -> Iterator[tuple[str, int, Cost, Callable[[], Measurement]]]:
        common = {"precision": _PRECISIONS[self.dtype], "image_size": self.size, "task": _TASK}
        common["round_seconds"] = self.seconds
        cached = {"trainable": "layer4", "batch_norm": "frozen", "after": "layer3"}
        for batch in self.batches:
            model, dtype = _Model(self.size, batch, self.dtype), jnp.dtype(self.dtype)
            for what, settings, cost in (
                ("step, layer4 and heads, from outputs of layer3", cached, model.cost("layer3", None, ["layer4"])),
                ("step, all trained", {"trainable": "all"}, model.cost(None, None, list(model.stages))),
            ):
                yield what, batch, cost, partial(computing.step, {**common, **settings, "batch": batch})
            yield "forward", batch, model.cost(None, None, None), partial(computing.forward, {**common, "batch": batch})
            for before, stage in zip([None, *model.stages], model.stages, strict=False) if self.groups else ():
                for what, trained in (("forward", None), ("forward and backward", [stage])):
                    cost = model.cost(before, stage, trained, from_pictures=before is None)
                    measure = partial(_group, model, before, stage, trained is not None, dtype, self.seconds)
                    yield f"{stage}, {what}", batch, cost, measure


class _Model:
    """The notebook's trunk at a batch size, and what its parts cost."""

    def __init__(self, size: int, batch: int, dtype: str):
        self.size, self.batch, self.itemsize = size, batch, jnp.dtype(dtype).itemsize
        self.spec = computing.spec_of({"image_size": size})
        self.stages = tuple(self.spec.abstract().trunk.STAGES)

    def shape(self, after: str | None) -> tuple[int, ...]:
        """Returns the shape of a stage's outputs, or of the pictures."""
        images = jax.ShapeDtypeStruct((self.batch, self.size, self.size, 3), jnp.float32)
        if after is None:
            return images.shape
        graphdef, params, stats = split_values(self.spec.abstract())

        def outputs(params: Values, stats: Values, images: jax.Array) -> jax.Array:
            return nnx.merge(graphdef, params, stats, copy=True).trunk(images, until=after)

        return jax.eval_shape(outputs, params, stats, images).shape

    def cost(
        self, after: str | None, until: str | None, trained: Sequence[str] | None, *, from_pictures: bool = True
    ) -> Cost:
        """Returns the least that the stages between two take; with their gradients where some are trained.

        Args:
          after: the stage that comes before them, or None.
          until: the last of them, or None for the rest, and the head.
          trained: the stages that are trained; None without gradients.
          from_pictures: whether no gradient has to reach what goes in.
        """
        model = self.spec.abstract()
        model.eval()
        plain_convolutions(model)
        graphdef, params, stats = split_values(model)

        def outputs(params: Values, inputs: jax.Array) -> jax.Array:
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), stats)
            merged = nnx.merge(graphdef, params, zeros, copy=True)
            if until is not None:
                return merged.trunk(inputs, after=after, until=until)
            return merged(inputs, tasks=(_TASK,), after=after)[_TASK]

        program = jax.make_jaxpr(outputs)(params, jax.ShapeDtypeStruct(self.shape(after), jnp.float32))
        modules = {module for stage in trained or () for module in model.trunk.STAGES[stage]}

        def is_reached(path: Any) -> bool:
            names = [str(getattr(key, "key", key)) for key in path[:2]]
            return trained is not None and (names[0] == "heads" or names[1] in modules)

        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        reached = [*(is_reached(path) for path, _ in leaves), trained is not None and not from_pictures]
        flops, numbers = (count(program.jaxpr, reached, cost_of)[0] for cost_of in (product_flops, product_numbers))
        return Cost(flops, numbers * self.itemsize)


def _group(
    model: _Model, before: str | None, stage: str, backward: bool, dtype: jnp.dtype, seconds: float
) -> Measurement:
    """The stages after one up to another, alone; with `backward`, in training mode and with all of their gradients."""
    built = create_model(tasks=model.spec.tasks, rngs=nnx.Rngs(0), dtype=dtype)
    built.train() if backward else built.eval()
    graphdef, params, stats = split_values(built)
    inputs = jnp.asarray(np.random.RandomState(0).standard_normal(model.shape(before)), dtype)

    def outputs(params: Values, inputs: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params, stats, copy=True).trunk(inputs, after=before, until=stage)

    @jax.jit
    def run(params: Values, inputs: jax.Array) -> Any:
        if not backward:
            return outputs(params, inputs)
        out, pull = jax.vjp(outputs, params, inputs)
        of_params, of_inputs = pull(out)
        return of_params if before is None else (of_params, of_inputs)

    held: list[Any] = []

    def call() -> None:
        held[:] = [run(params, inputs)]

    return repeated(call, lambda: jax.block_until_ready(held), images=model.batch, seconds=seconds)


def _copy(mib: int, seconds: float) -> Measurement:
    """A large array to another, each number changed, so that it is read and written."""
    numbers, copied = jnp.zeros(mib * 2**18, jnp.float32), jax.jit(lambda array: array + 1)
    held: list[Any] = []

    def call() -> None:
        held[:] = [copied(numbers)]

    return repeated(call, lambda: jax.block_until_ready(held), images=0, seconds=seconds)


def _row(what: str, batch: int, rate: float, cost: Cost, roofs: Roofs) -> list[str]:
    took = batch / rate
    arithmetic, memory = cost.flops / roofs.flops, cost.num_bytes / roofs.num_bytes
    return [
        what,
        str(batch),
        f"{rate:,.0f}" if rate >= 1000 else f"{rate:.3g}",
        f"{1e3 * took:.3g}",
        f"{1e3 * arithmetic:.3g} ms",
        f"{1e3 * memory:.3g} ms",
        f"{max(arithmetic, memory) / took:.0%} ({'arithmetic' if arithmetic >= memory else 'memory'})",
        f"{arithmetic / took:.0%}",
        f"{memory / took:.0%}",
    ]


if __name__ == "__main__":
    run_and_exit(lambda: run_command_line(Arguments, __doc__))
