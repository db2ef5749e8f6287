"""Files of timm's: their names become torchvision's. tests/compare holds the numbers to timm's own modules."""

from __future__ import annotations

import numpy as np
import pytest

from facefeat_jax.models import abstract, convnext_tiny, efficientnet_b0, efficientnet_b5, vit_b_32
from weights_conversion import to_flax
from weights_conversion._timm_names import from_timm
from weights_conversion.convert import WeightsMismatchError, recognise, torch_shapes

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BOTH = ("weight", "bias")


def vit() -> list[str]:
    inner = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = ["patch_embed.proj", *(f"blocks.{b}.{one}" for b in range(12) for one in inner), "norm", "head"]
    return ["cls_token", "pos_embed", *(f"{layer}.{part}" for layer in layers for part in BOTH)]


def convnext() -> list[str]:
    blocks = [f"stages.{stage}.blocks.{b}" for stage, depth in enumerate((3, 3, 9, 3)) for b in range(depth)]
    layers = [f"{block}.{one}" for block in blocks for one in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2")]
    layers += [f"stages.{stage}.downsample.{one}" for stage in (1, 2, 3) for one in (0, 1)]
    layers += ["stem.0", "stem.1", "head.norm", "head.fc"]
    return [f"{block}.gamma" for block in blocks] + [f"{layer}.{part}" for layer in layers for part in BOTH]


def efficientnet() -> list[str]:
    names = ["conv_stem.weight", "conv_head.weight", "classifier.weight", "classifier.bias"]
    names += [f"{bn}.{part}" for bn in ("bn1", "bn2") for part in BATCH_NORM]
    for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for block in (f"blocks.{stage}.{b}" for b in range(depth)):
            names += [f"{block}.{conv}.weight" for conv in ("conv_pw", "conv_dw", *(("conv_pwl",) if stage else ()))]
            names += [f"{block}.se.conv_{one}.{part}" for one in ("reduce", "expand") for part in BOTH]
            names += [f"{block}.bn{n}.{part}" for n in range(1, 4 if stage else 3) for part in BATCH_NORM]
    return names


@pytest.mark.parametrize(
    ("build", "timms"), [(vit_b_32, vit()), (convnext_tiny, convnext()), (efficientnet_b0, efficientnet())]
)
def test_every_tensor_finds_its_place(build, timms: list[str]) -> None:
    """By names: those of timm, each once, are those of the whole trunk with its classifier."""
    shapes = torch_shapes(abstract(build, num_classes=3))
    renamed = from_timm({name: np.zeros(1) for name in timms})
    assert set(renamed) == set(shapes) and len(timms) == len(shapes)
    # The other way round, with shapes: such a file fits, and is recognised.
    places = dict(zip(renamed, timms, strict=True))
    file = {places[name]: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    file = {name: tensor[:, 0, 0] if name.endswith(".gamma") else tensor for name, tensor in file.items()}
    assert recognise(file) == build.__name__
    file = {name: np.zeros((), np.int64) if name.endswith("tracked") else tensor for name, tensor in file.items()}
    assert to_flax(file, abstract(build, num_classes=3)).fc.out_features == 3


def test_another_epsilon_than_timms_is_refused() -> None:
    file = {"blocks.0.0.conv_dw.weight": np.zeros((48, 1, 3, 3), np.float32)}
    with pytest.raises(WeightsMismatchError, match=r"epsilon of 1e-05; the model's is 0\.001.*norm_layer="):
        to_flax(file, abstract(efficientnet_b5))


def test_other_files_are_left_alone() -> None:
    tensors = {"conv1.weight": np.zeros(1), "head.weight": np.zeros(1)}
    assert from_timm(tensors) is tensors
