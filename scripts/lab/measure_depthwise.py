"""Measures what depthwise convolutions as shifted sums save on CPU: a training step of EfficientNet B0.

python scripts/lab/measure_depthwise.py --image-size 96
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jax import lax

from facefeat_jax.models import efficientnet_b0
from facefeat_jax.models.cpu import depthwise


@dataclass(frozen=True)
class Arguments:
    image_size: int = 96
    """Side of the pictures in pixels."""
    batch_size: int = 8
    """Pictures per step."""
    steps: int = 5
    """Steps of each kind, one after the other in turns; the median counts."""


def main(arguments: Arguments) -> None:
    """Prints compile time and step time of both."""
    shape = (arguments.batch_size, arguments.image_size, arguments.image_size, 3)
    images = jnp.asarray(np.random.RandomState(0).standard_normal(shape), jnp.float32)
    key = jax.random.key(0)

    def compiled(convolve):
        with mock.patch.object(depthwise, "conv_general_dilated", convolve):
            model = nnx.jit(lambda: efficientnet_b0(num_classes=10, rngs=nnx.Rngs(0)))()
        model.train()
        graphdef, *states = nnx.split(model, nnx.Param, ...)
        params, rest = map(nnx.to_pure_dict, states)

        def loss_of(params, rest, images, key):
            model = nnx.merge(graphdef, params, rest, copy=True)
            logits = model(images, rngs=nnx.Rngs(dropout=key))
            return jnp.mean(jnp.square(logits)), nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

        started = time.perf_counter()
        step = jax.jit(jax.grad(loss_of, has_aux=True)).lower(params, rest, images, key).compile()
        return lambda: jax.block_until_ready(step(params, rest, images, key)), time.perf_counter() - started

    kinds = {"lax.conv_general_dilated": lax.conv_general_dilated, "shifts": depthwise.conv_general_dilated}
    steps = {name: compiled(convolve) for name, convolve in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.steps + 1):
        for name, (step, _) in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    print(f"EfficientNet B0, {shape}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name, (_, compile_seconds) in steps.items():
        print(f"{name}: step {statistics.median(seconds[name][1:]):.3f} s, compiled in {compile_seconds:.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
