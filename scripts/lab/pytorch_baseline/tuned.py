"""The notebook's program as someone would write it who wants it fast in PyTorch, with the same mathematics.

Pictures by loader workers that stay, as uint8 (normalised on the device), pinned; channels_last; on a GPU bfloat16 by
AMP, cuDNN's own search for algorithms, a fused Adam; nothing read back from the device before a pass ends; and, where
asked for, the trunk through `torch.compile`. Losses are those of logits: AMP refuses BCELoss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_baseline.model import BINARY, MultiTaskNet
from pytorch_baseline.pictures import MEAN, STD, resize
from pytorch_baseline.training import LEARNING_RATE

Precision = Literal["float32", "tf32", "bf16"]


def set_precision(precision: Precision) -> None:
    """Sets what float32 products may be rounded to, for the whole process, and lets cuDNN search."""
    exact = precision == "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.benchmark = True


class Trainer:
    """Model, optimizer and device, set up for speed.

    Args:
      model: the network, its frozen parameters marked.
      device: where to compute.
      precision: `bf16` is AMP.
      compiled: whether the trunk goes through torch.compile.
      batch_size: of full batches. Others (the last of a pass) go uncompiled: compiling once more would cost more.
    """

    def __init__(
        self, model: MultiTaskNet, device: torch.device, precision: Precision, *, compiled: bool, batch_size: int
    ):
        set_precision(precision)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.device = device
        self._batch_size = batch_size
        self._amp = precision == "bf16"
        self._compiled = torch.compile(model.backbone, dynamic=False) if compiled else None
        self._optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
        self._mean, self._std = (
            torch.tensor([255 * value for value in values], device=device).view(1, 3, 1, 1) for values in (MEAN, STD)
        )

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self._amp else nullcontext()

    def logits(self, images: torch.Tensor, task: str) -> torch.Tensor:
        """Returns the head's logits in float32, of uint8 pictures `[batch, 3, height, width]` on the device."""
        pixels = (images.float() - self._mean) / self._std
        use_compiled = self._compiled is not None and len(images) == self._batch_size
        trunk = self._compiled if use_compiled else self.model.backbone
        with self._precision():
            return getattr(self.model, f"{task}_head")(trunk(pixels)).float()

    def step(self, images: torch.Tensor, labels: torch.Tensor, task: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes a training step; returns loss and hits, which stay on the device."""
        self._optimizer.zero_grad(set_to_none=True)
        logits = self.logits(images, task)
        loss = loss_of_logits(logits, labels, task)
        loss.backward()
        self._optimizer.step()
        return loss.detach(), hits_of_logits(logits.detach(), labels, task)

    def train_pass(self, batches: Iterable, task: str) -> int:
        """Trains on every batch; returns how many pictures there were."""
        self.model.train()
        return self._over(batches, lambda images, labels: self.step(images, labels, task))[0]

    def validate(self, batches: Iterable, task: str) -> tuple[int, float, float]:
        """Returns the number of pictures, the accuracy, and the mean of the batches' losses."""
        self.model.eval()

        def look(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.logits(images, task)
            return loss_of_logits(logits, labels, task), hits_of_logits(logits, labels, task)

        with torch.no_grad():
            return self._over(batches, look)

    def _over(self, batches: Iterable, do) -> tuple[int, float, float]:
        count, losses, hits = 0, [], []
        for images, labels in batches:
            loss, right = do(self.to_device(images), labels.to(self.device, non_blocking=True))
            losses.append(loss)
            hits.append(right)
            count += len(labels)
        accuracy = float(torch.stack(hits).sum()) / count
        return count, accuracy, float(torch.stack(losses).mean())

    def to_device(self, images: torch.Tensor) -> torch.Tensor:
        """Moves uint8 pictures `[batch, height, width, 3]` to the device, seen as channels_last NCHW."""
        return images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)


def loss_of_logits(logits: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Returns the mean loss, from logits `[batch, outputs]`."""
    if task in BINARY:
        return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.float())
    return nn.functional.cross_entropy(logits, labels)


def hits_of_logits(logits: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
    """Returns how many pictures are predicted right, as a tensor."""
    predicted = (logits.squeeze(1) > 0).to(labels.dtype) if task in BINARY else logits.argmax(1)
    return (predicted == labels).sum()


class FileDataset(Dataset):
    """Picture files and labels; pictures as uint8 `[size, size, 3]`, decoded anew each time they are asked for."""

    def __init__(self, pictures: Sequence[tuple[str, int]], size: int):
        self._pictures = list(pictures)
        self._resize = resize(size)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file, label = self._pictures[index]
        with Image.open(file) as image:
            return torch.from_numpy(np.array(self._resize(image.convert("RGB")))), label


def tuned_loader(dataset: Dataset, batch_size: int, workers: int, device: torch.device, *, shuffle: bool) -> DataLoader:
    """Returns a loader whose workers stay from one pass to the next."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
