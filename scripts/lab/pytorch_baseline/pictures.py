"""The notebook's data pipeline: PIL in `__getitem__`, torchvision's transforms, a DataLoader without workers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pytorch_baseline.vision import torchvision

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def resize(size: int) -> Callable[[Image.Image], Image.Image]:
    """Returns the notebook's resize: bilinear, antialiased, the aspect ratio not kept."""
    return torchvision.transforms.Resize((size, size))


def transform(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Returns the notebook's transform, the same in training and validation: there is no augmentation."""
    return torchvision.transforms.Compose(
        [resize(size), torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(MEAN, STD)]
    )


class PictureDataset(Dataset):
    """Pictures and their labels for one task, decoded anew each time they are asked for, as in the notebook.

    Args:
      read: returns the bytes of the picture of that number.
      labels: class numbers by the picture's number.
      size: side in pixels.
    """

    def __init__(self, read: Callable[[int], bytes], labels: np.ndarray, size: int):
        self._read = read
        self._labels = labels
        self._transform = transform(size)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self._read(index))).convert("RGB")
        return self._transform(image), int(self._labels[index])


def loader(
    dataset: PictureDataset, batches: Sequence[Sequence[int]], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the batches made of these pictures, on the device.

    The notebook lets the DataLoader shuffle; here the order is given, so that another program can train on the same.
    """
    pairs: Iterable = DataLoader(dataset, batch_sampler=batches, num_workers=0)
    for images, labels in pairs:
        yield images.to(device), labels.to(device)


def tensor_of(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Returns uint8 pictures `[batch, height, width, 3]` as `ToTensor` and `Normalize` make them, in any float type."""
    scaled = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous().to(dtype).div(255)
    mean, std = (torch.tensor(values, dtype=dtype).view(3, 1, 1) for values in (MEAN, STD))
    return scaled.sub_(mean).div_(std)
