"""The trunks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from facefeat_jax.errors import unknown
from facefeat_jax.models import resnet
from facefeat_jax.models.trunk import Trunk


@dataclass(frozen=True)
class Architecture:
    """A trunk that can be asked for by name.

    Attributes:
      name: as in `create_model`.
      build: makes the trunk from `num_classes`, `in_channels`, `dtype`, `param_dtype` and `rngs`.
      stages: the modules of each stage, by the stage's name, in order.
      image_size: side of the square pictures that its ImageNet weights were trained on.
      imagenet_weights: their name in `weights_conversion.download.WEIGHTS`.
    """

    name: str
    build: Callable[..., Trunk]
    stages: dict[str, tuple[str, ...]]
    image_size: int
    imagenet_weights: str


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            "resnet18",
            resnet.resnet18,
            stages=resnet.ResNet.STAGES,
            image_size=224,
            imagenet_weights="resnet18-f37072fd",
        ),
    )
}


def list_models() -> list[str]:
    """Returns the names that `create_model` takes."""
    return list(ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """Returns the architecture of that name.

    Raises:
      UserError: there is none.
    """
    if name not in ARCHITECTURES:
        raise unknown("model", name, ARCHITECTURES)
    return ARCHITECTURES[name]
