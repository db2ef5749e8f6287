"""Times the forms of `models.cpu` against XLA's own.

    python scripts/lab/measure_cpu_convolution.py

Prints two Markdown tables: the convolutions and the max-pooling of a ResNet18, forwards and backwards (PyTorch's too,
where it is installed), and whole steps. What is compared is CPU time on one core, the least of the repetitions, each
side in turn: on a machine that others use as well, wall time on two cores mostly tells how busy they are.
`scripts/benchmark.py` compares wall times.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from unittest import mock

import jax
import numpy as np
import tyro
from flax import nnx
from jax import lax

from facefeat_jax.models import _convolution as model_convolution
from facefeat_jax.models import resnet
from facefeat_jax.models.cpu import convolution as cpu_convolution
from facefeat_jax.models.cpu import pooling as cpu_pooling
from facefeat_jax.system.main import run_and_exit
from measuring import Call, convolution, forward_and_backward, layers, milliseconds, on_one_core, show, step_call

_SIDES = ("XLA", "here", "PyTorch")


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
    rows = []
    for name, _, inputs, kernel, stride in layers(size, batch_size):
        if kernel is None:
            xla = forward_and_backward(xla_max_pool, inputs)
            here = forward_and_backward(partial(cpu_pooling.max_pool, window=3, stride=2, pad=1), inputs)
        else:
            xla = forward_and_backward(convolution(kernel, stride), inputs, kernel)
            own = convolution(kernel, stride, cpu_convolution.conv_general_dilated)
            here = forward_and_backward(own, inputs, kernel)
        calls = {"XLA": xla, "here": here, "PyTorch": torch_calls(inputs, kernel, stride)}
        known = {f"{side} {way}": call for side, both in calls.items() if both for way, call in enumerate(both)}
        times = milliseconds(known, repeats)
        cells = [times.get(f"{side} {way}") for way in (0, 1) for side in _SIDES]
        rows.append([name, *("" if time is None else f"{time:.1f}" for time in cells)])
    what = f"batch {batch_size}, {size} px, ms on one core; forwards, then backwards"
    show(__file__, [what, *_SIDES, *(f"{side}, back" for side in _SIDES)], rows)


def xla_max_pool(inputs: jax.Array, window: int = 3, stride: int = 2, pad: int = 1) -> jax.Array:
    """XLA's max-pooling, with the arguments of `cpu_pooling.max_pool`."""
    return nnx.max_pool(inputs, (window, window), strides=(stride, stride), padding=((pad, pad), (pad, pad)))


@contextlib.contextmanager
def xlas_forms() -> Iterator[None]:
    """Has models that are made and traced inside use XLA's convolutions and max-pooling."""
    with (
        mock.patch.object(model_convolution, "conv_general_dilated", lax.conv_general_dilated),
        mock.patch.object(resnet, "max_pool", xla_max_pool),
    ):
        yield


def step_table(sizes: tuple[int, ...], batch_size: int, repeats: int) -> None:
    """Prints a row for each size and what is trained: milliseconds of CPU time of a whole training step."""
    rows = []
    for size in sizes:
        for trainable in ("layer4", "all"):
            with xlas_forms():
                calls = {"xla": step_call(size, batch_size, trainable)}
            calls["here"] = step_call(size, batch_size, trainable)
            xla, here = milliseconds(calls, repeats).values()
            rows.append([f"{size} px, {trainable} trained", f"{xla:.0f}", f"{here:.0f}", f"{xla / here:.2f}"])
    what = f"training step, batch {batch_size}, ms on one core"
    show(__file__, [what, "XLA's forms", "the forms here", "ratio"], rows)


def main(sizes: tuple[int, ...] = (64, 96, 224), batch_size: int = 32, repeats: int = 5) -> None:
    on_one_core()
    layer_table(max(sizes), batch_size, repeats)
    step_table(sizes, batch_size, repeats)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
