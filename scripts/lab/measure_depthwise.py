"""Measures what depthwise convolutions as shifted sums save on CPU: a training step of EfficientNet B0.

    python scripts/lab/measure_depthwise.py --image-size 96

Prints a Markdown table: the median of the steps of each kind, taken in turn, and how long it took to compile.
"""

from __future__ import annotations

import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jax import lax

from facefeat_jax.models import efficientnet_b0
from facefeat_jax.models.cpu import depthwise
from facefeat_jax.system.main import run_and_exit
from measuring import in_turn, show


def main(image_size: int = 96, batch_size: int = 8, steps: int = 5) -> None:
    """Prints the table.

    Args:
      image_size: side of the pictures in pixels.
      batch_size: pictures per step.
      steps: steps of each kind.
    """
    images = jnp.asarray(np.random.RandomState(0).standard_normal((batch_size, image_size, image_size, 3)), jnp.float32)
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
    programs = {name: compiled(convolve) for name, convolve in kinds.items()}
    seconds = in_turn({name: call for name, (call, _) in programs.items()}, steps)
    rows = [[name, f"{statistics.median(seconds[name]):.3f}", f"{took:.1f}"] for name, (_, took) in programs.items()]
    show(__file__, [f"EfficientNet B0, batch {batch_size}, {image_size} px", "step, s", "compiling, s"], rows)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
