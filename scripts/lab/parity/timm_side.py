"""timm's networks and ours on the same weights, in float64: logits in both modes, and what training mode moves."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from facefeat_jax.models import Bottleneck, ConvNeXt, ResNet, VisionTransformer, abstract
from facefeat_jax.models.efficientnet import V2_SMALL, EfficientNetV2Small, Scale, efficientnet_b0
from facefeat_jax.models.resnet import resnet18, resnet18d
from weights_conversion import to_flax, to_torch
from weights_conversion._names import canonical
from weights_conversion._records import Record, precision
from weights_conversion._with_torch import import_torchvision

ONE_EACH = (1, 1, 1, 1)
short = partial(ResNet, ONE_EACH, block=Bottleneck)
# timm's name and options, ours, and the side of the pictures: one of each family and stem, with few blocks.
CASES: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "resnet": ("resnet18", {}, resnet18, 64),
    "d": ("resnet18d", {}, resnet18d, 63),
    "d with bottlenecks and dilation": (
        "resnet50d",
        {"layers": (1, 2, 1, 1), "output_stride": 8},
        partial(
            ResNet,
            (1, 2, 1, 1),
            block=Bottleneck,
            stem="deep",
            avg_down=True,
            replace_stride_with_dilation=(False, True, True),
        ),
        63,
    ),
    "s": ("resnet50s", {"layers": ONE_EACH}, partial(short, stem="deep", stem_width=64), 64),
    "t": ("resnet50t", {"layers": ONE_EACH}, partial(short, stem="deep_tiered", avg_down=True), 64),
    "resnext": ("resnext50_32x4d", {"layers": ONE_EACH}, partial(short, groups=32, width_per_group=4), 64),
    "wide": ("wide_resnet50_2", {"layers": ONE_EACH}, partial(short, width_per_group=128), 64),
    "convnext": (
        "convnext_tiny",
        {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)},
        partial(ConvNeXt, (1, 2, 1, 1), (8, 16, 24, 32)),
        64,
    ),
    "vit": (
        "vit_base_patch16_224",
        {"depth": 2, "embed_dim": 24, "num_heads": 3, "patch_size": 8, "img_size": 32},
        partial(VisionTransformer, 8, depth=2, width=24, heads=3, hidden=96, image_size=32),
        32,
    ),
    "efficientnet": ("efficientnet_b0", {}, efficientnet_b0, 64),
    "efficientnet v2": (
        "efficientnetv2_s",
        {"channel_multiplier": 0.25, "depth_multiplier": 0.2},
        partial(EfficientNetV2Small, Scale(0.25, 0.2, dropout=0.2), table=V2_SMALL, stem=24, head=320),
        64,
    ),
}


def run(case: str) -> tuple[Record, Record]:
    """Returns the numbers of ours and of timm's: `evaluation`, `training`, `statistics`, by torchvision's names."""
    import_torchvision()
    import timm
    import torch

    name, theirs_options, build, side = CASES[case]
    theirs = timm.create_model(name, pretrained=False, num_classes=5, drop_rate=0.0, **theirs_options).double().eval()
    tensors = _moved(theirs)
    pixels = np.random.RandomState(1).standard_normal((4, side, side, 3))
    with torch.no_grad():
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        expected = [theirs(images).numpy(), theirs.train()(images).numpy()]
    after = canonical({key: tensor.numpy() for key, tensor in theirs.state_dict().items()})
    found = [_record(*expected, after)]
    with precision("float64"):
        trunk = to_flax(tensors, abstract(build, num_classes=5, param_dtype="float64"))
        trunk.set_attributes(rate=0.0, raise_if_not_found=False)

        @jax.jit
        def both(state: nnx.State, images: jax.Array) -> tuple[jax.Array, jax.Array, nnx.State]:
            evaluating, training = nnx.merge(graphdef, state), nnx.merge(graphdef, state, copy=True)
            evaluating.eval()
            training.train()
            return evaluating(images), training(images), nnx.state(training)

        graphdef, state = nnx.split(trunk)
        *logits, moved = both(state, jnp.asarray(pixels))
        found.insert(0, _record(*map(np.asarray, logits), to_torch(nnx.merge(graphdef, moved))))
    return found[0], found[1]


def _record(evaluation: np.ndarray, training: np.ndarray, state: Any) -> Record:
    statistics = {name: np.asarray(array, np.float64) for name, array in state.items()}
    return Record({"evaluation": {"logits": evaluation}, "training": {"logits": training}, "statistics": statistics})


def _moved(theirs) -> dict[str, np.ndarray]:
    """Moves every tensor of a network away from its start, and returns them."""
    import torch

    stream, tensors = np.random.RandomState(0), {}
    for key, tensor in theirs.state_dict().items():
        array = np.array(tensor.numpy())
        if array.ndim == 1:
            array = stream.uniform(0.5, 1.5, array.shape)
        elif array.ndim > 1:
            array = stream.standard_normal(array.shape) / np.sqrt(np.prod(array.shape[1:]))
        tensors[key] = array
    theirs.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in tensors.items()})
    return tensors
