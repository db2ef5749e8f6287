"""Times ResNet18 on CPU under flags of XLA's, one at a time, each in processes of its own.

    python scripts/lab/measure_xla_flags.py

Prints a Markdown table: CPU time on one core, the median of the rounds, the flags in turn in each. A flag that this
jaxlib does not know is named and left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import jax
import tyro

from facefeat_jax.forward import make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.system.main import run_and_exit
from measuring import Call, milliseconds, model_and_spec, on_one_core, pictures, show, step_call

_LIBRARY = "LIBRARY_FUSION_TYPE_INDIVIDUAL"
FLAGS = [
    "",
    f"--xla_cpu_experimental_onednn_fusion_type={_LIBRARY}_CONVOLUTION",
    f"--xla_cpu_experimental_onednn_fusion_type={_LIBRARY}_CONVOLUTION,{_LIBRARY}_DOT",
    f"--xla_cpu_experimental_ynn_fusion_type={_LIBRARY}_CONVOLUTION",
    "--xla_cpu_experimental_ynn_fusion_type=",
    "--xla_cpu_prefer_vector_width=512",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_use_multi_output_fusion=true",
]


def forward_call(size: int, batch_size: int) -> Call:
    """Returns a call of one forward pass from random weights, traced and compiled."""
    model, spec = model_and_spec(size)
    model.eval()
    graphdef, params, batch_stats = split_values(model)
    run = make_predict_step(graphdef, spec, "float32")
    images = jax.device_put(pictures(size, batch_size))

    def call() -> None:
        jax.block_until_ready(run(params, batch_stats, images, tasks=("gender",)))

    call()
    return call


def measure(size: int, repeats: int) -> dict[str, float]:
    """Returns the least CPU time of each call, in milliseconds, under the flags of this process."""
    on_one_core()
    calls = {
        "forward, batch 32": forward_call(size, 32),
        "forward, batch 1": forward_call(size, 1),
        "step, batch 32, layer4 and heads": step_call(size, 32, "layer4"),
        "step, batch 32, all": step_call(size, 32, "all"),
    }
    return milliseconds(calls, repeats)


def main(size: int = 224, rounds: int = 3, repeats: int = 3, worker: bool = False) -> None:
    """Prints the table; with `worker`, one round under this process's flags, as JSON."""
    if worker:
        print(json.dumps(measure(size, repeats)))
        return
    results: dict[str, list[dict[str, float]]] = {flags: [] for flags in FLAGS}
    command = [sys.executable, __file__, "--worker", "--size", str(size), "--repeats", str(repeats)]
    for _ in range(rounds):
        for flags in list(results):
            done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True)
            if done.returncode:
                print(f"left out, it ended with {done.returncode}: {flags}", file=sys.stderr)
                del results[flags]
            else:
                results[flags].append(json.loads(done.stdout.splitlines()[-1]))
    names = list(results[""][0])
    rows = [
        [
            f"`{flags}`" if flags else "none",
            *(f"{statistics.median(one[name] for one in measured):.1f}" for name in names),
        ]
        for flags, measured in results.items()
    ]
    show(__file__, [f"ms on one core, {size} px", *names], rows)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
