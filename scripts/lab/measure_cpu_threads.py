"""Times each layer of a ResNet18 on all cores, and says how many of them it keeps busy.

    python scripts/lab/measure_cpu_threads.py

Prints a Markdown table of the convolutions as XLA runs them on CPU, forwards: the median time by the clock, and CPU
time over it. XLA's convolution runs in one thread where it has few output channels, whatever the batch.
"""

from __future__ import annotations

import statistics
import time

import tyro

from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.runtime import keep_memory_between_steps
from measuring import Call, convolution, forward_and_backward, layers, show


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
    keep_memory_between_steps()
    rows = []
    for name, filters, inputs, kernel, stride in layers(224, batch_size):
        if kernel is not None:
            forward, _ = forward_and_backward(convolution(kernel, stride), inputs, kernel)
            wall, cores = times(forward, repeats)
            rows.append([name, filters, f"{wall:.1f}", f"{cores:.2f}"])
    show(__file__, [f"layer, batch {batch_size}, 224 px", "output channels", "ms, each", "cores busy"], rows)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
