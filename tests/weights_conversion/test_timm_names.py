"""Files of timm's: their names become torchvision's. tests/compare holds the numbers to timm's own modules."""

from __future__ import annotations

import numpy as np
import pytest

from facefeat_jax import UserError
from facefeat_jax.models import (
    EfficientNet,
    abstract,
    convnext_tiny,
    efficientnet_b0,
    efficientnet_b5,
    resnet18,
    resnet18d,
    vit_b_32,
)
from facefeat_jax.models.efficientnet import V2_MEDIUM, V2_SMALL, EfficientNetV2Small, Scale, Stage
from weights_conversion import to_flax
from weights_conversion._timm_names import from_timm, require_same
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


def resnet18d_names() -> list[str]:
    names = [f"conv1.{number}.weight" for number in (0, 3, 6)] + ["fc.weight", "fc.bias"]
    norms = ["conv1.1", "conv1.4", "bn1"]
    for stage in (1, 2, 3, 4):
        for block in (f"layer{stage}.{b}" for b in (0, 1)):
            names += [f"{block}.conv{n}.weight" for n in (1, 2)]
            norms += [f"{block}.bn{n}" for n in (1, 2)]
        if stage > 1:
            names.append(f"layer{stage}.0.downsample.1.weight")
            norms.append(f"layer{stage}.0.downsample.2")
    return names + [f"{norm}.{part}" for norm in norms for part in BATCH_NORM]


@pytest.mark.parametrize(
    ("build", "timms"),
    [
        (vit_b_32, vit()),
        (convnext_tiny, convnext()),
        (efficientnet_b0, efficientnet()),
        (resnet18d, resnet18d_names()),
    ],
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


@pytest.mark.parametrize("table", [V2_SMALL, V2_MEDIUM])
def test_every_tensor_of_a_v2_finds_its_place(table: tuple[Stage, ...]) -> None:
    """Of one with a block or two in each stage: fused in the first three, of which the first do not widen."""
    table = tuple(stage._replace(blocks=2 if stage is table[3] else 1) for stage in table)
    kind = EfficientNetV2Small if len(table) == 6 else EfficientNet
    shapes = torch_shapes(abstract(kind, Scale(0.5, 1.0, dropout=0.2), table=table, stem=24, head=16, num_classes=3))
    names = ["conv_stem.weight", "conv_head.weight", "classifier.weight", "classifier.bias"]
    names += [f"{bn}.{part}" for bn in ("bn1", "bn2") for part in BATCH_NORM]
    for stage, row in enumerate(table):
        for block in (f"blocks.{stage}.{b}" for b in range(row.blocks)):
            convs = [["conv"], ["conv_exp", "conv_pwl"], ["conv_pw", "conv_dw", "conv_pwl"]][(stage > 0) + (stage > 2)]
            names += [f"{block}.{conv}.weight" for conv in convs]
            names += [f"{block}.bn{n}.{part}" for n in range(1, len(convs) + 1) for part in BATCH_NORM]
            if stage > 2:
                names += [f"{block}.se.conv_{one}.{part}" for one in ("reduce", "expand") for part in BOTH]
    renamed = from_timm({name: np.zeros(1) for name in names})
    assert set(renamed) == set(shapes) and len(names) == len(shapes)


def test_another_epsilon_than_timms_is_refused() -> None:
    file = {"blocks.0.0.conv_dw.weight": np.zeros((48, 1, 3, 3), np.float32)}
    with pytest.raises(WeightsMismatchError, match=r"epsilon of 1e-05; the model's is 0\.001.*norm_layer="):
        to_flax(file, abstract(efficientnet_b5))


def test_other_files_are_left_alone() -> None:
    tensors = {"conv1.weight": np.zeros(1), "head.weight": np.zeros(1)}
    assert from_timm(tensors) is tensors


def test_what_computes_something_else_is_refused_by_its_name() -> None:
    """Names and shapes of many of these fit ours."""
    same = "resnet18 resnet50d resnet26t resnext50_32x4d resnext50d_32x4d wide_resnet101_2 efficientnet_b3"
    for one in f"{same} efficientnetv2_m vit_base_patch16_384 deit_base_patch16_224 convnext_tiny".split():
        require_same(one, "a/b")
    other = "resnetblur50 resnetaa50d ecaresnet50d seresnet50 resnet50_gn resnetrs50 resnetv2_50 resnet32ts"
    for one in f"{other} vit_base_patch16_clip_224 efficientnetv2_rw_t convnext_tiny_hnf convnextv2_tiny".split():
        with pytest.raises(UserError, match=f"a/b: timm's {one} computes something else"):
            require_same(one, "a/b")


def test_a_file_of_another_stem_says_whose_it_looks() -> None:
    file = {n: np.zeros(shape, np.float32) for n, shape in torch_shapes(abstract(resnet18d)).items()}
    with pytest.raises(WeightsMismatchError, match=r"It looks like resnet18d\."):
        to_flax(file, abstract(resnet18))
    rw = {"blocks.0.0.conv_exp.weight": np.zeros((24, 24, 3, 3), np.float32)}
    with pytest.raises(WeightsMismatchError, match="timm's efficientnetv2_rw or the like, another network"):
        to_flax(rw, abstract(resnet18))
