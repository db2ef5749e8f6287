"""The notebook's training: one Adam over everything, one task after the other in each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from pytorch_baseline.model import BINARY, MultiTaskNet

LEARNING_RATE = 1e-4

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]  # images NCHW, normalised; labels, class numbers


@dataclass(frozen=True)
class PassResult:
    """One pass over the batches of a task."""

    accuracy: float  # share of pictures predicted right
    loss: float  # mean over pictures (beyond the notebook)
    loss_of_batches: float  # mean of the batches' means, which is what the notebook reports
    n: int  # number of pictures
    seconds: float  # how long it took, waiting for pictures included


def make_optimizer(model: MultiTaskNet) -> torch.optim.Adam:
    """Returns the one Adam; parameters without a gradient are skipped by it, step count and all."""
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)


def loss_of(outputs: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Returns BCELoss of probabilities, or CrossEntropyLoss of logits."""
    if task in BINARY:
        return nn.functional.binary_cross_entropy(outputs, labels.to(outputs.dtype))
    return nn.functional.cross_entropy(outputs, labels)


def hits(outputs: torch.Tensor, labels: torch.Tensor, task: str) -> int:
    """Returns how many pictures are predicted right."""
    predicted = (outputs > 0.5).to(labels.dtype) if task in BINARY else outputs.argmax(1)
    return int((predicted == labels).sum())


def train_step(
    model: MultiTaskNet, optimizer: torch.optim.Optimizer, task: str, images: torch.Tensor, labels: torch.Tensor
) -> tuple[float, int]:
    """Takes one step; returns the batch's loss and hits."""
    optimizer.zero_grad(set_to_none=True)
    outputs = model(images, task)
    loss = loss_of(outputs, labels, task)
    loss.backward()
    optimizer.step()
    return loss.item(), hits(outputs, labels, task)


def train_pass(
    model: MultiTaskNet,
    optimizer: torch.optim.Optimizer,
    task: str,
    batches: Batches,
    on_batch: Callable[[int], None] = lambda count: None,
) -> PassResult:
    """Trains on every batch, the last short one too."""
    model.train()
    return _run(task, batches, lambda images, labels: train_step(model, optimizer, task, images, labels), on_batch)


def validate(
    model: MultiTaskNet, task: str, batches: Batches, on_batch: Callable[[int], None] = lambda count: None
) -> PassResult:
    """Returns how the model does on the batches, in evaluation mode."""
    model.eval()

    def step(images: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        outputs = model(images, task)
        return loss_of(outputs, labels, task).item(), hits(outputs, labels, task)

    with torch.no_grad():
        return _run(task, batches, step, on_batch)


def _run(
    task: str,
    batches: Batches,
    step: Callable[[torch.Tensor, torch.Tensor], tuple[float, int]],
    on_batch: Callable[[int], None],
) -> PassResult:
    started = time.perf_counter()
    losses, counts, correct = [], [], 0
    for images, labels in batches:
        loss, right = step(images, labels)
        losses.append(loss)
        counts.append(len(labels))
        correct += right
        on_batch(len(labels))
    n = sum(counts)
    return PassResult(
        accuracy=correct / n,
        loss=sum(loss * count for loss, count in zip(losses, counts, strict=True)) / n,
        loss_of_batches=sum(losses) / len(losses),
        n=n,
        seconds=time.perf_counter() - started,
    )
