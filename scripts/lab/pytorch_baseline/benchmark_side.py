"""PyTorch's sides of the benchmark: what each operation does. The main of their worker processes.

`mode` says which side: `written` is the notebook's program to the letter, `tuned` is `pytorch_baseline.tuned`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarking.pictures import Listing, read_listing
from facefeat_jax.benchmarking.measure import Measurement, Settings, repeated, serve
from pytorch_baseline import training
from pytorch_baseline.model import MultiTaskNet, freeze_early_layers
from pytorch_baseline.pictures import PictureDataset, tensor_of
from pytorch_baseline.tuned import FileDataset, Trainer, set_precision, tuned_loader

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _after() -> dict[str, Any]:
    return {"device_peak_bytes": torch.cuda.max_memory_allocated()} if DEVICE.type == "cuda" else {}


def _forget_peak() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _about(**values: Any) -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), **values}


def _is_tuned(settings: Settings) -> bool:
    return settings["mode"] == "tuned"


def _network(trainable: str, weights: str | None = None) -> MultiTaskNet:
    """Returns the network, from random weights or those of a trunk: the notebook's freezing, or none, or all of it."""
    torch.manual_seed(0)
    model = MultiTaskNet()
    if weights is not None:
        model.backbone.load_state_dict(torch.load(weights, weights_only=True))
    if trainable == "layer4":
        freeze_early_layers(model)
    elif trainable == "none":
        model.backbone.requires_grad_(False)
    return model


class _AsWritten:
    """The notebook's program, with the methods of `Trainer`; pictures are normalised before they reach the device."""

    def __init__(self, model: MultiTaskNet):
        self.model = model.to(DEVICE)
        self._optimizer = training.make_optimizer(model)

    def to_device(self, pixels: torch.Tensor) -> torch.Tensor:
        return tensor_of(pixels.numpy(), torch.float32).to(DEVICE)

    def logits(self, images: torch.Tensor, task: str) -> torch.Tensor:
        return self.model(images, task)

    def step(self, images: torch.Tensor, labels: torch.Tensor, task: str) -> object:
        return training.train_step(self.model, self._optimizer, task, images, labels)

    def train_pass(self, batches: DataLoader, task: str) -> int:
        return training.train_pass(self.model, self._optimizer, task, _on_device(batches)).n

    def validate(self, batches: DataLoader, task: str) -> tuple[int, float, float]:
        found = training.validate(self.model, task, _on_device(batches))
        return found.n, found.accuracy, found.loss


def _on_device(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return ((images.to(DEVICE), labels.to(DEVICE)) for images, labels in loader)


def _program(settings: Settings, trainable: str) -> Trainer | _AsWritten:
    model = _network(trainable, settings.get("weights"))
    if not _is_tuned(settings):
        return _AsWritten(model)
    compiled = settings.get("compile", False)
    return Trainer(model, DEVICE, settings["precision"], compiled=compiled, batch_size=settings["batch"])


def matmul(settings: Settings) -> Measurement:
    """A square matrix product."""
    set_precision(settings["precision"])
    size = settings["size"]
    left, right = (torch.randn(size, size, device=DEVICE).to(_DTYPES[settings["precision"]]) for _ in range(2))
    about = _about(flops_per_call=2.0 * size**3)
    return repeated(lambda: left @ right, _wait, images=0, seconds=settings["round_seconds"], **about)


class _Written(PictureDataset):
    """The notebook's dataset over files: each opened, decoded, resized and normalised whenever it is asked for."""

    def __init__(self, pictures: list[tuple[str, int]], size: int):
        files = [Path(file) for file, _ in pictures]
        super().__init__(lambda index: files[index].read_bytes(), np.array([label for _, label in pictures]), size)
        self._length = len(files)

    def __len__(self) -> int:
        return self._length


def _loader(pictures: list[tuple[str, int]], settings: Settings, *, shuffle: bool = False) -> DataLoader:
    size, batch = settings["image_size"], settings["batch"]
    if _is_tuned(settings):
        return tuned_loader(FileDataset(pictures, size), batch, settings["workers"], DEVICE, shuffle=shuffle)
    return DataLoader(_Written(pictures, size), batch_size=batch, shuffle=shuffle, num_workers=0)


def _listing(settings: Settings) -> Listing:
    return read_listing(Path(settings["listing"]))


def decode(settings: Settings) -> Measurement:
    """Picture files to this side's batches, on the host."""
    files = _listing(settings).files("train")[: settings["pictures"]]
    loader = _loader([(str(file), 0) for file in files], settings)

    def run() -> dict[str, Any]:
        return {"images": sum(len(labels) for _, labels in loader)}

    run()
    return Measurement(run, about=_about(workers=settings["workers"]))


def feed(settings: Settings) -> Measurement:
    """Picture files to this side's batches, on the device; a round begins anew."""
    loader = _loader(_listing(settings).pictures["train"][settings["task"]], settings, shuffle=True)

    def run() -> dict[str, Any]:
        images = 0
        for pictures, labels in itertools.islice(loader, settings["batches"]):
            pictures.to(DEVICE, non_blocking=_is_tuned(settings))
            images += len(labels)
        _wait()
        return {"images": images}

    run()
    return Measurement(run, about=_about(workers=settings["workers"]))


def _pixels(settings: Settings) -> torch.Tensor:
    shape = (settings["batch"], settings["image_size"], settings["image_size"], 3)
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8))


def step(settings: Settings) -> Measurement:
    """A training step on a batch that is on the device already."""
    _forget_peak()
    task, batch = settings["task"], settings["batch"]
    program = _program(settings, settings["trainable"])
    program.model.train()
    images, labels = program.to_device(_pixels(settings)), (torch.arange(batch) % 2).to(DEVICE)

    def call() -> None:
        program.step(images, labels, task)

    return repeated(call, _wait, images=batch, seconds=settings["round_seconds"], **_about())


def forward(settings: Settings) -> Measurement:
    """The evaluation of a batch that is on the device already."""
    _forget_peak()
    task, batch = settings["task"], settings["batch"]
    program = _program(settings, "all")
    program.model.eval()
    images = program.to_device(_pixels(settings))
    without_gradients = torch.inference_mode if _is_tuned(settings) else torch.no_grad

    def call() -> None:
        with without_gradients():
            program.logits(images, task)

    return repeated(call, _wait, images=batch, seconds=settings["round_seconds"], **_about())


def validation(settings: Settings) -> Measurement:
    """Picture files to a head's accuracy and loss, with a model in memory."""
    task = settings["task"]
    loader = _loader(_listing(settings).pictures["val"][task], settings)
    program = _program(settings, "layer4")

    def run() -> dict[str, Any]:
        return {"images": program.validate(loader, task)[0]}

    started = time.perf_counter()
    run()
    first = time.perf_counter() - started
    return Measurement(run, about=_about(first_call_seconds=first, workers=settings["workers"]))


def job(settings: Settings) -> Measurement:
    """A whole training run, picture files to the accuracies that the notebook prints.

    `share` takes that part of every task's pictures, for runs that would take hours, and `most_pictures` as many of an
    epoch's at most: `epoch_seconds` and `images` are those of what was done.
    """
    listing = _listing(settings)
    total = sum(len(of) for tasks in listing.pictures.values() for of in tasks.values())
    share = min(settings["share"], (settings.get("most_pictures") or total) / total)
    pictures = {
        split: {task: of[: max(settings["batch"], round(len(of) * share))] for task, of in tasks.items()}
        for split, tasks in listing.pictures.items()
    }

    def run() -> dict[str, Any]:
        loaders = {
            split: {task: _loader(of, settings, shuffle=split == "train") for task, of in tasks.items()}
            for split, tasks in pictures.items()
        }
        program = _program(settings, settings["trainable"])
        images, accuracy, seconds = 0, {}, []
        for _ in range(settings["epochs"]):
            started = time.perf_counter()
            for task in pictures["train"]:
                trained = program.train_pass(loaders["train"][task], task)
                validated, accuracy[task], _ = program.validate(loaders["val"][task], task)
                images += trained + validated
            seconds.append(time.perf_counter() - started)
        return {
            "images": images,
            "epochs": settings["epochs"],
            "share": share,
            "epoch_seconds": seconds,
            "accuracy": accuracy,
        }

    return Measurement(run, about=_about(workers=settings["workers"]))


OPERATIONS: dict[str, Callable[[Settings], Measurement]] = {
    operation.__name__: operation for operation in (matmul, decode, feed, step, forward, validation, job)
}

if __name__ == "__main__":
    serve(OPERATIONS, _after)
