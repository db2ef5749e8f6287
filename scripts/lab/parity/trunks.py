"""One small network of each family of trunks, as both sides build it, and a case for it.

Small, so that float64 steps compile and run in seconds; every kind of layer and block of the family is there. The
published sizes are compared live (tests/compare/test_trunks.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from facefeat_jax.models import Bottleneck, ConvNeXt, EfficientNet, ResNet, VisionTransformer, abstract
from facefeat_jax.models.efficientnet import Scale, Stage
from facefeat_jax.models.trunk import Trunk
from weights_conversion._masks import Masks
from weights_conversion._records import Arrays, Record, without_rounding
from weights_conversion._trunk_sides import jax_side, torch_side
from weights_conversion.convert import torch_shapes

CLASSES = 5
BATCH = 8
# Expansion 1 and more, both kernels and strides, a width that rounding moves, blocks with and without a shortcut.
_TABLE = (Stage(1, 3, 1, 16, 2), Stage(6, 5, 2, 24, 2), *(Stage(4, 3, stride, 36, 1) for stride in (2, 1, 1, 2, 1)))
_SCALE = Scale(width=0.5, depth=1.0, dropout=0.2, epsilon=1e-3, momentum=0.99)
_VIT = {"patch": 8, "depth": 2, "width": 24, "heads": 3, "hidden": 40}


@dataclass(frozen=True)
class SmallTrunk:
    """A small network."""

    build: Callable[..., Trunk]  # makes ours
    build_torch: Callable[[], Any]  # makes torchvision's
    image_size: int  # side of its pictures in pixels

    def tensors(self, seed: int = 0) -> Arrays:
        """Returns made-up weights in float64, every tensor away from its default."""
        stream = np.random.RandomState(seed)
        shapes = torch_shapes(abstract(self.build))
        return {name: _drawn(stream, name, shape) for name, shape in sorted(shapes.items())}

    def images(self) -> np.ndarray:
        """Returns made-up pictures, normalised, `[batch, size, size, 3]`."""
        return np.random.RandomState(1).standard_normal((BATCH, self.image_size, self.image_size, 3))

    def labels(self) -> np.ndarray:
        """Returns a class number for each picture."""
        return np.random.RandomState(2).randint(0, CLASSES, BATCH)

    def run(self, side: str, masks: list[Masks] | None = None) -> Record:
        """Runs a side (`jax` or `torch`): forward in both modes, gradients and three steps of Adam.

        With `masks` things are dropped at random: torch's side adds what it drew, ours takes that.
        """
        run, build = (jax_side, self.build) if side == "jax" else (torch_side, self.build_torch)
        data = self.tensors(), self.images(), self.labels()
        record = run(build, *data, dtype="float64", training=True, masks=masks)
        record.values["gradients"] = without_rounding(record.values["gradients"])
        return record


def _drawn(stream: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = name.rpartition(".")[2]
    if tensor == "num_batches_tracked":
        return np.array(stream.randint(1, 1000), np.int64)
    if len(shape) == 1:
        if tensor in ("weight", "running_var"):
            return stream.uniform(0.5, 1.5, shape)
        return stream.standard_normal(shape) * 0.1
    fan_in = np.prod(shape[1:])
    return stream.standard_normal(shape) * (0.1 if len(shape) == 3 else np.sqrt(1 / fan_in))


def _torch_resnet() -> Any:
    from torchvision.models import resnet

    return resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], num_classes=CLASSES)


def _torch_efficientnet() -> Any:
    import torch
    from torchvision.models import efficientnet

    def width(features: int) -> int:
        return efficientnet.MBConvConfig.adjust_channels(features, _SCALE.width)

    rows, features = [], width(32)
    for stage in _TABLE:
        wanted = width(stage.features)
        sizes = stage.expansion, stage.kernel, stage.stride, features, wanted, stage.blocks
        rows.append(efficientnet.MBConvConfig(*sizes))
        features = wanted
    norm = partial(torch.nn.BatchNorm2d, eps=_SCALE.epsilon, momentum=1 - _SCALE.momentum)
    return efficientnet.EfficientNet(rows, _SCALE.dropout, num_classes=CLASSES, norm_layer=norm)


def _torch_vit(dropout: float = 0.0) -> Any:
    from torchvision.models import vision_transformer

    return vision_transformer.VisionTransformer(
        image_size=32,
        patch_size=_VIT["patch"],
        num_layers=_VIT["depth"],
        num_heads=_VIT["heads"],
        hidden_dim=_VIT["width"],
        mlp_dim=_VIT["hidden"],
        dropout=dropout,
        num_classes=CLASSES,
    )


def _torch_convnext() -> Any:
    from torchvision.models import convnext

    ends = ((8, 16, 1), (16, 16, 2), (16, 24, 1), (24, None, 1))
    rows = [convnext.CNBlockConfig(*row) for row in ends]
    return convnext.ConvNeXt(rows, stochastic_depth_prob=0.5, layer_scale=0.1, num_classes=CLASSES)


SMALL_TRUNKS: dict[str, SmallTrunk] = {
    "resnet": SmallTrunk(
        partial(ResNet, (1, 2, 1, 1), block=Bottleneck, num_classes=CLASSES), _torch_resnet, image_size=32
    ),
    "efficientnet": SmallTrunk(
        partial(EfficientNet, _SCALE, table=_TABLE, num_classes=CLASSES), _torch_efficientnet, image_size=48
    ),
    "vit": SmallTrunk(
        partial(VisionTransformer, **_VIT, image_size=32, num_classes=CLASSES), _torch_vit, image_size=32
    ),
}

DROPPING: dict[str, SmallTrunk] = {
    "efficientnet": SMALL_TRUNKS["efficientnet"],
    "convnext": SmallTrunk(
        partial(ConvNeXt, (1, 2, 1, 1), (8, 16, 16, 24), drop_path=0.5, num_classes=CLASSES),
        _torch_convnext,
        image_size=32,
    ),
    "vit": SmallTrunk(
        partial(VisionTransformer, **_VIT, image_size=32, dropout=0.2, num_classes=CLASSES),
        partial(_torch_vit, dropout=0.2),
        image_size=32,
    ),
}
"""Those with something that drops at random; compared live, as what torch draws is not in the golden files."""
