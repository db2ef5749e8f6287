"""Times each layer of a ResNet18 on all cores, and says how many of them it keeps busy.

    python scripts/lab/measure_cpu_threads.py

Prints a Markdown table of the convolutions as XLA runs them on CPU, forwards: the median time by the clock, and CPU
time over it. XLA's convolution runs in one thread where it has few output channels, whatever the batch.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import jax
import numpy as np
import tyro
from jax import lax

from facefeat_jax.system.allocator import keep_freed_memory
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.markdown import table
from measure_cpu_convolution import LAYERS, Call, jax_calls


def times(call: Call, repeats: int) -> tuple[float, float]:
    """Returns the median milliseconds of a call by the clock, and the cores that it keeps busy."""
    call()  # compiles
    walls, cores = [], []
    for _ in range(repeats):
        wall, used = time.perf_counter(), time.process_time()
        call()
        wall, used = time.perf_counter() - wall, time.process_time() - used
        walls.append(1e3 * wall)
        cores.append(used / wall)
    return statistics.median(walls), statistics.median(cores)


def main(batch_size: int = 32, repeats: int = 5) -> None:
    """Prints the table."""
    keep_freed_memory()
    random, rows = np.random.RandomState(0), []
    for name, count, side, channels, filters, size, stride in LAYERS:
        inputs = random.standard_normal((batch_size, side, side, channels)).astype("f4")
        kernel = random.standard_normal((size, size, channels, filters)).astype("f4")
        conv = partial(
            lax.conv_general_dilated,
            window_strides=(stride, stride),
            padding=((size // 2, size // 2),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        forward, _ = jax_calls(conv, inputs, kernel)
        wall, cores = times(forward, repeats)
        rows.append([f"{count} x {name}", filters, f"{wall:.1f}", f"{cores:.2f}"])
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {batch_size}, 224 px\n")
    print("\n".join(table(["layer", "output channels", "ms, each", "cores busy"], rows)))


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
