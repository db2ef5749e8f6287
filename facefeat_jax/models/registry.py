"""The trunks by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefeat_jax.models import convnext, efficientnet, resnet, vit
from facefeat_jax.models.convnext import ConvNeXt
from facefeat_jax.models.efficientnet import EfficientNet, EfficientNetV2Small
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
_DEEP_RESNET_PAPER = "https://arxiv.org/abs/1812.01187"
_RESNEXT_PAPER = "https://arxiv.org/abs/1611.05431"
_WIDE_RESNET_PAPER = "https://arxiv.org/abs/1605.07146"
_EFFICIENTNET_PAPER = "https://arxiv.org/abs/1905.11946"
_CONVNEXT_PAPER = "https://arxiv.org/abs/2201.03545"
_EFFICIENTNET_V2_PAPER = "https://arxiv.org/abs/2104.00298"
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
            Architecture(build.__name__, build, width, ResNet.STAGES, ResNet.LAST, _DEEP_RESNET_PAPER)
            for build, width in (
                (resnet.resnet18d, 512),
                (resnet.resnet34d, 512),
                (resnet.resnet50d, 2048),
                (resnet.resnet101d, 2048),
                (resnet.resnet152d, 2048),
                (resnet.resnet50s, 2048),
                (resnet.resnet101s, 2048),
                (resnet.resnet152s, 2048),
                (resnet.resnet50t, 2048),
            )
        ),
        *(
            Architecture(build.__name__, build, 2048, ResNet.STAGES, ResNet.LAST, paper)
            for build, paper in (
                (resnet.resnext50_32x4d, _RESNEXT_PAPER),
                (resnet.resnext101_32x8d, _RESNEXT_PAPER),
                (resnet.resnext101_64x4d, _RESNEXT_PAPER),
                (resnet.wide_resnet50_2, _WIDE_RESNET_PAPER),
                (resnet.wide_resnet101_2, _WIDE_RESNET_PAPER),
            )
        ),
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
            Architecture(build.__name__, build, 1280, kind.STAGES, kind.LAST, _EFFICIENTNET_V2_PAPER)
            for build, kind in (
                (efficientnet.efficientnet_v2_s, EfficientNetV2Small),
                (efficientnet.efficientnet_v2_m, EfficientNet),
                (efficientnet.efficientnet_v2_l, EfficientNet),
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
        *(
            Architecture(build.__name__, build, width, ConvNeXt.STAGES, ConvNeXt.LAST, _CONVNEXT_PAPER)
            for build, width in (
                (convnext.convnext_tiny, 768),
                (convnext.convnext_small, 768),
                (convnext.convnext_base, 1024),
                (convnext.convnext_large, 1536),
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


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Returns the names that `create_model` and `create_classifier` take.

    Args:
      pattern: with `*` for any letters and `?` for one, as names of files are given: `"resnet*"`.
      pretrained: only those that weights are published for.

    Raises:
      UserError: the pattern is no text.
    """
    if not isinstance(pattern, str):
        raise UserError(f"list_models takes a pattern such as 'resnet*', got {pattern!r:.60}")
    found = (one for one in ARCHITECTURES.values() if fnmatch.fnmatchcase(one.name, pattern.lower()))
    return [one.name for one in found if one.published or not pretrained]


def get_architecture(name: str) -> Architecture:
    """Returns the architecture with this name.

    Raises:
      UserError: no architecture has this name.
    """
    if name not in ARCHITECTURES:
        raise unknown("model", name, ARCHITECTURES)
    return ARCHITECTURES[name]
