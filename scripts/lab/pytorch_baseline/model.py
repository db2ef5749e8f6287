"""The notebook's network: torchvision's ResNet18 without its classifier, and three heads."""

from __future__ import annotations

import torch
from torch import nn

from pytorch_baseline.vision import torchvision

BINARY = ("gender", "glasses")
NUM_COLOURS = 8


class MultiTaskNet(nn.Module):
    """ResNet18 as `backbone` and `{gender,glasses,shirt}_head`; its `state_dict` has the notebook's 132 names.

    Attributes:
      backbone: torchvision's `resnet18` with `fc` replaced by the identity: 512 pooled features.
      gender_head, glasses_head, shirt_head: Linear(512, 256), ReLU, Linear(256, 1, 1 and 8).
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18(weights=None)
        self.backbone.fc = nn.Identity()
        self.gender_head = _head(1)
        self.glasses_head = _head(1)
        self.shirt_head = _head(NUM_COLOURS)

    def logits(self, images: torch.Tensor, task: str) -> torch.Tensor:
        """Returns what the head of `task` says before any sigmoid, `[batch, outputs]`; images are NCHW."""
        return getattr(self, f"{task}_head")(self.backbone(images))

    def forward(self, images: torch.Tensor, task: str) -> torch.Tensor:
        """Returns the notebook's outputs: probabilities `[batch]` for gender and glasses, logits for shirt."""
        logits = self.logits(images, task)
        return torch.sigmoid(logits).squeeze(1) if task in BINARY else logits


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, outputs))


def freeze_early_layers(model: MultiTaskNet) -> None:
    """Leaves `requires_grad` true for `layer4` and the heads only.

    This does not touch the mode of the frozen BatchNorms: under `model.train()` they normalise with batch statistics,
    and their running statistics go on moving.
    """
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad = name.startswith("layer4.")
