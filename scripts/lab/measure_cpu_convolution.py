"""Times the forms of `models.cpu` against XLA's own.

    python scripts/lab/measure_cpu_convolution.py

Prints two Markdown tables: the convolutions and the max-pooling of a ResNet18, forwards and backwards (PyTorch's too,
where it is installed), and whole steps. What is compared is CPU time on one core, the least of the repetitions, each
side in turn: on a machine that others use as well, wall time on two cores mostly tells how busy they are.
`scripts/benchmark.py` compares wall times.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from jax import lax

from facefeat_jax.models import _convolution as convolution
from facefeat_jax.models import resnet
from facefeat_jax.models.cpu import convolution as cpu_convolution
from facefeat_jax.models.cpu import pooling as cpu_pooling
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.allocator import keep_freed_memory
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps

# Name, how many there are, map side for pictures of 224 pixels, channels in and out, kernel, stride.
LAYERS = [
    ("conv1", 1, 224, 3, 64, 7, 2),
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
Call = Callable[[], Any]


def milliseconds(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Returns the least CPU time of each call, taken in turn."""
    least = {name: np.inf for name in calls}
    for call in calls.values():
        call()  # compiles
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.process_time()
            call()
            least[name] = min(least[name], 1e3 * (time.process_time() - started))
    return least


def jax_calls(operation: Callable[..., jax.Array], *arguments: np.ndarray) -> tuple[Call, Call]:
    """Returns the operation, and the gradients of all but a first argument with three channels."""
    arrays = tuple(map(jnp.asarray, arguments))
    wanted = tuple(range(1 if arrays[0].shape[-1] == 3 else 0, len(arrays)))
    forward = jax.jit(operation)
    cotangent = jnp.asarray(np.random.RandomState(1).standard_normal(jax.eval_shape(operation, *arrays).shape), "f4")

    @jax.jit
    def backward(arrays, cotangent):
        def of(*parts):
            return operation(*arrays[: wanted[0]], *parts)

        return jax.vjp(of, *(arrays[index] for index in wanted))[1](cotangent)

    return (
        lambda: jax.block_until_ready(forward(*arrays)),
        lambda: jax.block_until_ready(backward(arrays, cotangent)),
    )


def torch_calls(inputs: np.ndarray, kernel: np.ndarray | None, stride: int) -> tuple[Call, Call] | None:
    """Returns PyTorch's convolution (without a kernel, max-pooling) and its gradients; None where torch is not."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    x = torch.from_numpy(inputs).permute(0, 3, 1, 2).requires_grad_(inputs.shape[3] != 3)
    if kernel is None:
        wanted, operation = [x], partial(torch.nn.functional.max_pool2d, x, 3, stride, 1)
    else:
        w = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last).requires_grad_()
        wanted = [x, w] if x.requires_grad else [w]
        operation = partial(torch.nn.functional.conv2d, x, w, None, stride, kernel.shape[0] // 2)
    outputs = operation()
    cotangent = torch.randn_like(outputs)

    def forward() -> None:
        with torch.no_grad():
            operation()

    return forward, lambda: torch.autograd.grad(outputs, wanted, cotangent, retain_graph=True)


def layer_table(size: int, batch_size: int, repeats: int) -> None:
    """Prints a row for each layer: milliseconds of CPU time, forwards and backwards."""
    print(f"Batch {batch_size}, {size} px, ms on one core; forwards, then backwards:\n")
    print("| layers | XLA | here | PyTorch | XLA, back | here, back | PyTorch, back |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    stream = np.random.RandomState(0)
    for name, count, side, features, out_features, kernel_side, stride in [
        *LAYERS[:1],
        ("max-pooling", 1, 112, 64, 64, 0, 2),
        *LAYERS[1:],
    ]:
        side = max(1, side * size // 224)
        inputs = stream.standard_normal((batch_size, side, side, features)).astype(np.float32)
        if kernel_side:
            kernel = stream.standard_normal((kernel_side, kernel_side, features, out_features)).astype(np.float32)
            options = {
                "window_strides": (stride, stride),
                "padding": ((kernel_side // 2, kernel_side // 2),) * 2,
                "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
            }
            sides = {
                "xla": jax_calls(partial(lax.conv_general_dilated, **options), inputs, kernel),
                "here": jax_calls(partial(cpu_convolution.conv_general_dilated, **options), inputs, kernel),
            }
        else:
            kernel = None
            sides = {
                "xla": jax_calls(xla_max_pool, inputs),
                "here": jax_calls(partial(cpu_pooling.max_pool, window=3, stride=2, pad=1), inputs),
            }
        if theirs := torch_calls(inputs, kernel, stride):
            sides["torch"] = theirs
        times = milliseconds({f"{key} {way}": call for key in sides for way, call in enumerate(sides[key])}, repeats)
        cells = [
            f"{times[f'{key} {way}']:.1f}" if key in sides else "" for way in (0, 1) for key in ("xla", "here", "torch")
        ]
        print(f"| {count} x {name} | {' | '.join(cells)} |", flush=True)


def xla_max_pool(inputs: jax.Array, window: int = 3, stride: int = 2, pad: int = 1) -> jax.Array:
    """XLA's max-pooling, with the arguments of `cpu_pooling.max_pool`."""
    return nnx.max_pool(inputs, (window, window), strides=(stride, stride), padding=((pad, pad), (pad, pad)))


@contextlib.contextmanager
def xlas_forms() -> Iterator[None]:
    """Has models that are made and traced inside use XLA's convolutions and max-pooling."""
    with (
        mock.patch.object(convolution, "conv_general_dilated", lax.conv_general_dilated),
        mock.patch.object(resnet, "max_pool", xla_max_pool),
    ):
        yield


def model_and_spec(size: int) -> tuple[MultiTaskModel, ModelSpec]:
    """Returns the whole model with random weights, and what it is."""
    spec = ModelSpec("resnet18", {name: task.classes for name, task in TASKS.items()}, size, "upright", "random")
    return spec.build(rngs=nnx.Rngs(0)), spec


def pictures(size: int, batch_size: int) -> np.ndarray:
    """Returns noise for pictures, uint8 `[batch_size, size, size, 3]`."""
    return np.random.RandomState(0).randint(0, 256, (batch_size, size, size, 3)).astype(np.uint8)


def on_one_core() -> None:
    """Keeps this process on one core, and in the memory it has; to be called before XLA counts the cores."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    keep_freed_memory()


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


def step_table(sizes: tuple[int, ...], batch_size: int, repeats: int) -> None:
    """Prints a row for each size and what is trained: milliseconds of CPU time of a whole training step."""
    print(f"\n| training step, batch {batch_size}, ms on one core | XLA's forms | the forms here | ratio |")
    print("| --- | --- | --- | --- |")
    for size in sizes:
        for trainable in ("layer4", "all"):
            with xlas_forms():
                calls = {"xla": step_call(size, batch_size, trainable)}
            calls["here"] = step_call(size, batch_size, trainable)
            times = milliseconds(calls, repeats)
            row = f"{times['xla']:.0f} | {times['here']:.0f} | {times['xla'] / times['here']:.2f}"
            print(f"| {size} px, {trainable} trained | {row} |", flush=True)


def main(sizes: tuple[int, ...] = (64, 96, 224), batch_size: int = 32, repeats: int = 5) -> None:
    on_one_core()
    layer_table(max(sizes), batch_size, repeats)
    step_table(sizes, batch_size, repeats)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
