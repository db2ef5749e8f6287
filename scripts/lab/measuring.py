"""What the small measuring programs share: calls timed in turn, a ResNet18 to time, and how a table is printed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax import lax

from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import environment
from facefeat_jax.system.markdown import table
from facefeat_jax.system.runtime import keep_memory_between_steps
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps

Call = Callable[[], Any]
Clock = Callable[[], float]

# ResNet18's convolutions and its max-pooling (kernel 0): name, how many there are, map side for pictures of 224 pixels,
# channels in and out, kernel, stride.
LAYERS = [
    ("conv1", 1, 224, 3, 64, 7, 2),
    ("max-pooling", 1, 112, 64, 64, 0, 2),
    ("layer1", 4, 56, 64, 64, 3, 1),
    ("layer2, first", 1, 56, 64, 128, 3, 2),
    ("layer2, shortcut", 1, 56, 64, 128, 1, 2),
    ("layer2", 3, 28, 128, 128, 3, 1),
    ("layer3, first", 1, 28, 128, 256, 3, 2),
    ("layer3, shortcut", 1, 28, 128, 256, 1, 2),
    ("layer3", 3, 14, 256, 256, 3, 1),
    ("layer4, first", 1, 14, 256, 512, 3, 2),
    ("layer4, shortcut", 1, 14, 256, 512, 1, 2),
    ("layer4", 3, 7, 512, 512, 3, 1),
]
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch")


def show(program: str, header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table, and what it was measured with and on; `program` is the file of the one that measured."""
    recorded = environment.record(environment.typed(f"python scripts/lab/{Path(program).name}"), PACKAGES)
    print("\n".join([*environment.record_lines(recorded), "", *table(header, rows), ""]), flush=True)


def in_turn(calls: Mapping[str, Call], repeats: int, clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Returns the seconds of each call, taken in turn, after one that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            started = clock()
            call()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def milliseconds(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """Returns the least CPU time of each call, taken in turn: what else the machine does adds to it, if anything."""
    return {name: 1e3 * min(found) for name, found in in_turn(calls, repeats, time.process_time).items()}


def on_one_core() -> None:
    """Keeps this process on one core, and in the memory it has; to be called before XLA counts the cores."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    keep_memory_between_steps()


def layers(size: int, batch_size: int) -> Iterator[tuple[str, int, np.ndarray, np.ndarray | None, int]]:
    """Yields label, output channels, inputs, kernel (None for max-pooling) and stride of each of `LAYERS`."""
    stream = np.random.RandomState(0)
    for name, count, side, features, out_features, kernel_side, stride in LAYERS:
        side = max(1, side * size // 224)
        inputs = stream.standard_normal((batch_size, side, side, features)).astype(np.float32)
        kernel = None
        if kernel_side:
            kernel = stream.standard_normal((kernel_side, kernel_side, features, out_features)).astype(np.float32)
        yield f"{count} x {name}", out_features, inputs, kernel, stride


def convolution(kernel: np.ndarray, stride: int, convolve: Callable[..., jax.Array] = lax.conv_general_dilated) -> Any:
    """Returns a convolution of inputs and kernel, with the padding that a ResNet's have."""
    padding = ((kernel.shape[0] // 2, kernel.shape[0] // 2),) * 2
    return partial(
        convolve, window_strides=(stride, stride), padding=padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def forward_and_backward(operation: Callable[..., jax.Array], *arguments: np.ndarray) -> tuple[Call, Call]:
    """Returns calls of the operation, and of the gradients of all but a first argument with three channels."""
    arrays = tuple(map(jax.numpy.asarray, arguments))
    wanted = tuple(range(1 if arrays[0].shape[-1] == 3 else 0, len(arrays)))
    forward = jax.jit(operation)
    shape = jax.eval_shape(operation, *arrays).shape
    cotangent = jax.numpy.asarray(np.random.RandomState(1).standard_normal(shape), "f4")

    @jax.jit
    def backward(arrays, cotangent):
        def of(*parts):
            return operation(*arrays[: wanted[0]], *parts)

        return jax.vjp(of, *(arrays[index] for index in wanted))[1](cotangent)

    return (
        lambda: jax.block_until_ready(forward(*arrays)),
        lambda: jax.block_until_ready(backward(arrays, cotangent)),
    )


def model_and_spec(size: int) -> tuple[MultiTaskModel, ModelSpec]:
    """Returns the whole model with random weights, and what it is."""
    spec = ModelSpec("resnet18", {name: task.classes for name, task in TASKS.items()}, size, "upright", "random")
    return spec.build(rngs=nnx.Rngs(0)), spec


def pictures(size: int, batch_size: int) -> np.ndarray:
    """Returns noise for pictures, uint8 `[batch_size, size, size, 3]`."""
    return np.random.RandomState(0).randint(0, 256, (batch_size, size, size, 3)).astype(np.uint8)


def step_call(size: int, batch_size: int, trainable: str) -> Call:
    """Returns a call of one training step from random weights, traced and compiled."""
    model, spec = model_and_spec(size)
    trained = groups.trained_modules(model.trunk.STAGES, [trainable])
    graphdef, _ = steps.graphdefs(model, trained, freeze_batch_norm=False)
    step = steps.make_train_step(graphdef, spec, steps.StepOptions(trained, optax.constant_schedule(1e-4), "float32"))
    state = steps.create_state(model, trained)
    images = pictures(size, batch_size)
    labels = {name: np.zeros(batch_size, np.int32) for name in TASKS}

    def call() -> None:
        nonlocal state
        state, _ = step(state, images, labels, np.ones(batch_size, bool), tasks=tuple(TASKS))
        jax.block_until_ready(state)

    call()
    return call
