"""The trunks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefeat_jax.models import efficientnet, resnet, vit
from facefeat_jax.models.efficientnet import EfficientNet
from facefeat_jax.models.published import PublishedWeights, find_weights, weights_of
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.models.trunk import Stages, Trunk
from facefeat_jax.models.vit import VisionTransformer
from facefeat_jax.system.errors import UserError, unknown

_USUAL_SIZE = 224


@dataclass(frozen=True)
class Architecture:
    """A trunk with a name.

    Attributes:
      name: as in `create_model`.
      build: makes the trunk; it takes `TrunkOptions`.
      num_features: width of its pooled features.
      stages: the modules of each stage, by the stage's name, in order.
      last: the stages of its last block (`layer4` of a ResNet).
      paper: the paper that describes it.
      fixed_size: whether it is made for one image size, which `build` then takes as `image_size`.
    """

    name: str
    build: Callable[..., Trunk]
    num_features: int
    stages: Stages
    last: tuple[str, ...]
    paper: str
    fixed_size: bool = False

    @property
    def published(self) -> tuple[PublishedWeights, ...]:
        """The weights that are published for it, if any; the first are those of `weights="imagenet"`."""
        return weights_of(self.name)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square pictures that its ImageNet weights are at home with; without any, 224."""
        return self.published[0].image_size if self.published else _USUAL_SIZE

    def build_for(self, weights: str | Path, **options: Any) -> Trunk:
        """Makes the trunk that weights fit; `options` are `TrunkOptions`.

        Args:
          weights: as in `create_model`. They decide only what a `fixed_size` trunk is made for: the size of the
            published weights' pictures, else its usual size.
          **options: passed on.
        """
        size = self.made_for(weights)
        return self.build(**{**({} if size is None else {"image_size": size}), **options})

    def made_for(self, weights: str | Path) -> int | None:
        """Returns the side in pixels of the pictures that `build_for` makes it for; None leaves it to the trunk."""
        if not self.fixed_size:
            return None
        entry = find_weights(self.name, weights)
        if entry is None and not self.published:
            return None
        return entry.image_size if entry else self.image_size


_RESNET_PAPER = "https://arxiv.org/abs/1512.03385"
_EFFICIENTNET_PAPER = "https://arxiv.org/abs/1905.11946"
_VIT_PAPER = "https://arxiv.org/abs/2010.11929"

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("resnet18", resnet.resnet18, 512, ResNet.STAGES, ResNet.LAST, _RESNET_PAPER),
        Architecture("resnet34", resnet.resnet34, 512, ResNet.STAGES, ResNet.LAST, _RESNET_PAPER),
        Architecture("resnet50", resnet.resnet50, 2048, ResNet.STAGES, ResNet.LAST, _RESNET_PAPER),
        Architecture("resnet101", resnet.resnet101, 2048, ResNet.STAGES, ResNet.LAST, _RESNET_PAPER),
        Architecture("resnet152", resnet.resnet152, 2048, ResNet.STAGES, ResNet.LAST, _RESNET_PAPER),
        *(
            Architecture(build.__name__, build, width, EfficientNet.STAGES, EfficientNet.LAST, _EFFICIENTNET_PAPER)
            for build, width in (
                (efficientnet.efficientnet_b0, 1280),
                (efficientnet.efficientnet_b1, 1280),
                (efficientnet.efficientnet_b2, 1408),
                (efficientnet.efficientnet_b3, 1536),
                (efficientnet.efficientnet_b4, 1792),
                (efficientnet.efficientnet_b5, 2048),
                (efficientnet.efficientnet_b6, 2304),
                (efficientnet.efficientnet_b7, 2560),
            )
        ),
        *(
            Architecture(
                build.__name__,
                build,
                width,
                VisionTransformer.stages_of(depth),
                VisionTransformer.last_of(depth),
                _VIT_PAPER,
                fixed_size=True,
            )
            for build, width, depth in (
                (vit.vit_b_16, 768, 12),
                (vit.vit_b_32, 768, 12),
                (vit.vit_l_16, 1024, 24),
                (vit.vit_l_32, 1024, 24),
            )
        ),
    )
}


def add_architecture(architecture: Architecture) -> Architecture:
    """Adds your own trunk to the table, for this process. `--trunk`, `create_model` and runs then know its name.

    Raises:
      UserError: another trunk has this name.
    """
    if ARCHITECTURES.setdefault(architecture.name, architecture) != architecture:
        raise UserError(f"trunk {architecture.name!r} already exists; choose another name")
    return architecture


def list_models() -> list[str]:
    """Returns the names that `create_model` takes."""
    return list(ARCHITECTURES)


def get_architecture(name: str) -> Architecture:
    """Returns the architecture with this name.

    Raises:
      UserError: no architecture has this name.
    """
    if name not in ARCHITECTURES:
        raise unknown("model", name, ARCHITECTURES)
    return ARCHITECTURES[name]
