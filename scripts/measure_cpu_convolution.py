"""Times a whole training step with and without the detour for small maps: python scripts/measure_cpu_convolution.py

Prints a Markdown table: images per second at several picture sizes, the median of the steps, both ways in one run.
"""

import statistics
import sys
import time

import jax
import numpy as np
import optax
import tyro
from flax import nnx

from facefeat_jax.errors import run_main
from facefeat_jax.models import cpu_convolution
from facefeat_jax.spec import ModelSpec
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import groups, steps


def images_per_second(size: int, largest_side: int, batch_size: int, repeats: int) -> float:
    """Returns the median speed of a training step whose convolutions go through patches up to that map size."""
    cpu_convolution.LARGEST_SIDE = largest_side
    spec = ModelSpec("resnet18", {name: task.classes for name, task in TASKS.items()}, size, "upright", "random")
    model = spec.build(rngs=nnx.Rngs(0))
    trained = groups.trained_modules(model.trunk.STAGES, ["all"])
    graphdef, _ = steps.graphdefs(model, trained, freeze_batch_norm=False)
    step = steps.make_train_step(graphdef, spec, trained, optax.constant_schedule(1e-4), "float32")
    state = steps.create_state(model, trained)
    images = np.random.RandomState(0).randint(0, 256, (batch_size, size, size, 3)).astype(np.uint8)
    labels = {name: np.zeros(batch_size, np.int32) for name in TASKS}
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        state, metrics = step(state, images, labels, np.ones(batch_size, bool), tasks=tuple(TASKS))
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
    return batch_size / statistics.median(seconds[1:])  # the first one compiles


def main(sizes: tuple[int, ...] = (48, 64, 96), batch_size: int = 32, repeats: int = 9) -> None:
    largest_side = cpu_convolution.LARGEST_SIDE
    print("| picture size | XLA's convolutions | patches on maps up to 4x4 | ratio |")
    print("| --- | --- | --- | --- |")
    for size in sizes:
        plain = images_per_second(size, 0, batch_size, repeats)
        patches = images_per_second(size, largest_side, batch_size, repeats)
        print(f"| {size} px | {plain:.0f} images/s | {patches:.0f} images/s | {patches / plain:.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_main(lambda: tyro.cli(main)))
