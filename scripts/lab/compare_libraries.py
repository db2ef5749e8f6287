"""Times our trunks beside jaxnn's and torchvision's, on the same random weights, pictures and batch.

    python -m venv .venv-jaxnn
    .venv-jaxnn/bin/pip install -e . psutil optax torch==2.13.0 torchvision==0.28.0 jaxnn==0.2.0
    OMP_WAIT_POLICY=PASSIVE .venv-jaxnn/bin/python scripts/lab/compare_libraries.py --to docs/benchmarks/libraries.md

jaxnn needs an environment of its own: an older Pillow than ours. The three take turns in one process, so that other
work on the machine meets all of them, and the CPU's time is given beside the wall's. Weights are torchvision's random
start, carried to both; before anything is timed, the logits are compared. ResNets only: jaxnn's other family, Vision
Transformers, goes through `jax.jit` in evaluation mode only with arguments of its own.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
from flax import nnx

from common import write_measured
from facefeat_jax.models import abstract, get_architecture
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say
from weights_conversion import to_flax
from weights_conversion._with_torch import import_torchvision

PACKAGES = ("facefeat-jax", "jax", "jaxlib", "flax", "numpy", "jaxnn", "torch", "torchvision")
OURS = "facefeat_jax"
SIZE = 224
# jaxnn's paths, as torchvision's names.
_NAMES = (
    (r"stage_modules\.(\d+)\.layers\.(\d+)\.downsample\.conv", r"layer{n+1}.\2.downsample.0"),
    (r"stage_modules\.(\d+)\.layers\.(\d+)\.downsample\.bn", r"layer{n+1}.\2.downsample.1"),
    (r"stage_modules\.(\d+)\.layers\.(\d+)\.(\w+)", r"layer{n+1}.\2.\3"),
    (r"fc\.fc", "fc"),
)
_PARTS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

Call = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What is timed, how often, and where the results go."""

    trunks: tuple[str, ...] = ("resnet18", "resnet50")
    """ResNets that all three have."""
    batches: tuple[int, ...] = (1, 16)
    """Pictures of a forward pass."""
    step_batch: int = 8
    """Pictures of a training step."""
    rounds: int = 7
    """Rounds of each."""
    to: Path | None = None
    """The page of results, and a .json beside it."""


def jaxnn_model(name: str, tensors: Mapping[str, np.ndarray]) -> nnx.Module:
    """Returns jaxnn's model with torchvision's weights."""
    import jaxnn

    model = jaxnn.create_model(name, num_classes=1000)
    state, used = nnx.state(model, (nnx.Param, nnx.BatchStat)), set()
    for path, variable in nnx.to_flat_state(state):
        torch_name = _torch_name(".".join(map(str, path)))
        used.add(torch_name)
        array = tensors[torch_name]
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim) if path[-1] == "kernel" else None
        array = array if axes is None else array.transpose(axes)
        assert array.shape == variable.get_value().shape, (path, array.shape)
        variable.set_value(jnp.asarray(array))
    assert used == {one for one in tensors if not one.endswith("num_batches_tracked")}, "other tensors"
    nnx.update(model, state)
    return model


def _torch_name(path: str) -> str:
    layer, _, part = path.rpartition(".")
    for pattern, template in _NAMES:
        if match := re.fullmatch(pattern, layer):
            template = template.replace("{n+1}", str(int(match[1]) + 1) if "{n+1}" in template else "")
            layer = match.expand(template)
            break
    return f"{layer}.{_PARTS[part]}"


def of_jax(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[int], Any], Call]:
    """Returns a forward pass of so many pictures, and a training step, of a model of Flax's."""
    pixels, wanted = jnp.asarray(images), jnp.asarray(labels)
    model.eval()
    forward_graph, forward_state = nnx.split(model)
    forward = jax.jit(lambda state, images: nnx.merge(forward_graph, state)(images))
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def loss_of(params: nnx.State, rest: nnx.State) -> tuple[jax.Array, nnx.State]:
        training = nnx.merge(graph, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(training(pixels_of_step), wanted)
        return losses.mean(), nnx.state(training, nnx.Not(nnx.Param))

    pixels_of_step = pixels[: len(wanted)]

    @jax.jit
    def step(params: nnx.State, rest: nnx.State, state: Any) -> Any:
        gradients, rest = jax.grad(loss_of, has_aux=True)(params, rest)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), rest, state

    held = [params, rest, optimizer.init(params)]

    def train() -> None:
        held[:] = jax.block_until_ready(step(*held))

    return lambda count: np.asarray(forward(forward_state, pixels[:count])), train


def of_torch(model: Any, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[int], Any], Call]:
    """Returns the same of torchvision's model, in the layout that is faster on CPU."""
    import copy

    import torch

    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(memory_format=torch.channels_last)
    wanted = torch.from_numpy(labels)
    model = model.to(memory_format=torch.channels_last)
    training = copy.deepcopy(model).train()
    model.eval()
    optimizer = torch.optim.SGD(training.parameters(), lr=1e-3, momentum=0.9)

    def forward(count: int) -> np.ndarray:
        with torch.inference_mode():
            return model(pixels[:count]).numpy()

    def train() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(training(pixels[: len(labels)]), wanted).backward()
        optimizer.step()

    return forward, train


def measure(options: Options) -> dict[str, Any]:
    """Returns the results."""
    busy = psutil.cpu_percent(interval=3)  # before this script itself is at work
    load = os.getloadavg()[0]
    models = import_torchvision().models
    import torch

    stream, rows = np.random.RandomState(0), []
    count = max(*options.batches, options.step_batch)
    images = stream.standard_normal((count, SIZE, SIZE, 3)).astype(np.float32)
    labels = stream.randint(0, 1000, options.step_batch)
    for name in options.trunks:
        torch.manual_seed(0)
        theirs = getattr(models, name)(weights=None)
        tensors = {key: value.numpy().copy() for key, value in theirs.state_dict().items()}
        ours = to_flax(tensors, abstract(get_architecture(name).build, num_classes=1000))
        sides = {
            OURS: of_jax(ours, images, labels),
            "jaxnn": of_jax(jaxnn_model(name, tensors), images, labels),
            "torchvision": of_torch(theirs, images, labels),
        }
        logits = {side: forward(2) for side, (forward, _) in sides.items()}
        apart = {
            side: float(abs(found - logits["torchvision"]).max() / abs(logits["torchvision"]).max())
            for side, found in logits.items()
        }
        say(f"{name}: logits differ from torchvision's by {apart}")
        work = {f"forward, batch {batch}": batch for batch in options.batches}
        for what, batch in (*work.items(), (f"training step, batch {options.step_batch}", None)):
            calls = {
                side: step if batch is None else (lambda forward=forward, batch=batch: forward(batch))
                for side, (forward, step) in sides.items()
            }
            times = _in_turn(calls, options.rounds)
            say(f"{name}, {what}: {times}")
            rows.append({"trunk": name, "what": what, "times": times, "apart": apart})
    typed = environment.typed("python scripts/lab/compare_libraries.py")
    record = environment.record(typed, PACKAGES, devices="CPU")
    return {**record, "busy": busy, "load": load, "threads": torch.get_num_threads(), "rounds": options.rounds} | {
        "rows": rows
    }


def _in_turn(calls: Mapping[str, Call], rounds: int) -> dict[str, dict[str, float]]:
    """Returns by side the median milliseconds of wall and of CPU, and the least of wall."""
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in calls}
    for number in range(rounds + 1):  # the first compiles
        for side, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if number:
                times[side].append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)))
    found = {}
    for side, values in times.items():
        walls, cpus = zip(*values, strict=True)
        found[side] = {"wall": statistics.median(walls), "least": min(walls), "cpu": statistics.median(cpus)}
    return found


def page(results: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""
    rows = []
    for row in results["rows"]:
        ours = row["times"][OURS]
        for side, one in row["times"].items():
            ratios = [f"{one[kind] / ours[kind]:.2f}" for kind in ("wall", "least", "cpu")]
            numbers = [f"{one[kind]:.0f}" for kind in ("wall", "least", "cpu")]
            cells = (cell for pair in zip(numbers, ratios, strict=True) for cell in pair)
            rows.append((row["trunk"], row["what"], side, *cells))
    apart = {row["trunk"]: row["apart"] for row in results["rows"]}
    agreement = [(trunk, *(f"{found[side]:.1e}" for side in (OURS, "jaxnn"))) for trunk, found in apart.items()]
    header = ("trunk", "what", "by", "ms, median", "times ours", "ms, least", "times ours", "CPU ms", "times ours")
    return "\n".join(
        [
            "# Beside jaxnn and torchvision",
            "",
            *environment.record_lines(results),
            "",
            f"Pictures of {SIZE} pixels, float32, torchvision's random weights carried to all three, in one process, "
            f"taking turns; medians of {results['rounds']} rounds, and the least. Both JAX libraries are compiled "
            f"(`jax.jit`); torchvision runs as written, in its faster layout (channels_last), with "
            f"{results['threads']} threads. A training step is cross-entropy, gradients of everything and SGD with "
            "momentum. `times ours` above 1 is slower than facefeat_jax. "
            f"Other programs kept the cores {results['busy']:.0f}% busy when it began (load {results['load']:.1f}).",
            "",
            *markdown.table(header, rows, texts=3),
            "",
            "Largest difference of logits from torchvision's, relative to the largest:",
            "",
            *markdown.table(("trunk", OURS, "jaxnn"), agreement),
            "",
        ]
    )


def main() -> None:
    """Runs the command line."""
    write_measured(Options, __doc__, measure, page)


if __name__ == "__main__":
    run_and_exit(main)
