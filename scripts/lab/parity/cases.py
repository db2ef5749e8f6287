"""Made-up weights and batches, from numpy's `RandomState`: its stream is frozen, so golden files can depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from facefeat_jax.tasks import BASELINE_TASKS, TASKS

TASK_NAMES = BASELINE_TASKS
_FEATURES = 512
_HIDDEN = 256


class Batch(NamedTuple):
    """One training batch, cut short where it is the last of its pass."""

    task: str  # whose loss is taken
    images: np.ndarray  # `[n, size, size, 3]`, uint8
    labels: np.ndarray  # `[n]`, int64, class numbers


@dataclass(frozen=True)
class Case:
    """A short training run in the notebook's order."""

    image_size: int = 64  # side of the pictures in pixels
    batch_size: int = 16  # pictures per step
    steps: int = 8  # of each pass, the last and short one included
    short: tuple[int, int, int] = (9, 5, 12)  # pictures in the last batch of each task's pass
    epochs: int = 2  # how often the three passes are repeated
    # Stages of the trunk that are trained; `("layer4",)` is the notebook's, `("all",)` leaves none frozen.
    trainable: tuple[str, ...] = ("layer4",)
    seed: int = 0  # of weights, pictures and order

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps * len(TASK_NAMES) * self.epochs

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the weights that both sides start from."""
        return multi_task_weights(self.seed)

    def batches(self) -> list[Batch]:
        """Returns the batches of the whole run, in order: in each epoch one pass per task, shuffled anew."""
        stream = np.random.RandomState(self.seed + 1)
        pictures = {}
        for name, short in zip(TASK_NAMES, self.short, strict=True):
            count = (self.steps - 1) * self.batch_size + short
            labels = stream.randint(0, len(TASKS[name].classes), count).astype(np.int64)
            pictures[name] = made_up_pictures(stream, labels, self.image_size), labels
        result = []
        for _ in range(self.epochs):
            for name, (images, labels) in pictures.items():
                order = stream.permutation(len(labels))
                for start in range(0, len(order), self.batch_size):
                    rows = order[start : start + self.batch_size]
                    result.append(Batch(name, images[rows], labels[rows]))
        return result


def made_up_pictures(stream: np.random.RandomState, labels: np.ndarray, size: int) -> np.ndarray:
    """Returns uint8 pictures: patches of colour and noise, tinted by the label so that there is something to learn."""
    count, patch = len(labels), max(size // 8, 1)
    coarse = stream.randint(0, 128, (count, -(-size // patch), -(-size // patch), 3))
    patches = coarse.repeat(patch, axis=1).repeat(patch, axis=2)[:, :size, :size]
    noise = stream.randint(0, 64, (count, size, size, 3))
    tints = stream.randint(0, 64, (int(labels.max()) + 1, 3))
    return (patches + noise + tints[labels][:, None, None]).astype(np.uint8)


def resnet18_shapes() -> dict[str, tuple[int, ...]]:
    """Returns torchvision's names and shapes of ResNet18 without `fc`, counters included.

    Written out here and not asked of either side: both must fit it.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)

    def batch_norm(name: str, features: int) -> None:
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{tensor}"] = (features,)
        shapes[f"{name}.num_batches_tracked"] = ()

    convolution("conv1", 64, 3, 7)
    batch_norm("bn1", 64)
    inputs = 64
    for layer, features in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            convolution(f"{name}.conv1", features, inputs, 3)
            batch_norm(f"{name}.bn1", features)
            convolution(f"{name}.conv2", features, features, 3)
            batch_norm(f"{name}.bn2", features)
            if inputs != features:
                convolution(f"{name}.downsample.0", features, inputs, 1)
                batch_norm(f"{name}.downsample.1", features)
            inputs = features
    return shapes


def multi_task_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the notebook's 132 names and their shapes."""
    shapes = {f"backbone.{name}": shape for name, shape in resnet18_shapes().items()}
    for name in TASK_NAMES:
        for index, outputs, inputs in ((0, _HIDDEN, _FEATURES), (2, TASKS[name].num_outputs, _HIDDEN)):
            shapes[f"{name}_head.{index}.weight"] = (outputs, inputs)
            shapes[f"{name}_head.{index}.bias"] = (outputs,)
    return shapes


def multi_task_weights(seed: int) -> dict[str, np.ndarray]:
    """Returns a state dict with the notebook's names: float64, int64 counters, every tensor away from its default.

    Convolutions and linear layers have the spread that torch starts them with, so that gradients reach every layer;
    scales, shifts, running statistics and counters are those of a network that has been trained a while.
    """
    stream = np.random.RandomState(seed)
    return {name: _drawn(stream, name, shape) for name, shape in multi_task_shapes().items()}


def _drawn(stream: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = name.rpartition(".")[2]
    if tensor == "num_batches_tracked":
        return np.array(stream.randint(1, 1000), np.int64)
    if len(shape) == 4:
        return stream.standard_normal(shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
    if "_head." in name:
        fan_in = _FEATURES if ".0." in name else _HIDDEN
        return stream.uniform(-1, 1, shape) / np.sqrt(fan_in)
    if tensor in ("weight", "running_var"):
        return stream.uniform(0.5, 1.5, shape)
    return stream.standard_normal(shape) * 0.1
