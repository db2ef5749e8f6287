"""Weights of timm's in our trunks, against timm's own modules: names, numbers in float64, and preprocessing."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from facefeat_jax.models import BatchNorm, abstract, get_architecture
from facefeat_jax.models.registry import ARCHITECTURES
from parity import timm_side
from weights_conversion import to_flax
from weights_conversion._names import canonical
from weights_conversion._records import differences
from weights_conversion._timm_names import _SAME
from weights_conversion._with_torch import import_torchvision
from weights_conversion.convert import torch_shapes
from weights_conversion.timm_hub import preprocessing_of
from weights_conversion.verify import TOLERANCE

# What timm calls ours, where it is not the same.
TIMMS = {
    **{f"vit_{size[0]}_{patch}": f"vit_{size}_patch{patch}_224" for size in ("base", "large") for patch in (16, 32)},
    **{f"efficientnet_v2_{size}": f"efficientnetv2_{size}" for size in "sml"},
}
OURS = list(ARCHITECTURES)  # now: other tests add one


@pytest.fixture(scope="module")
def timm():
    import_torchvision()
    return pytest.importorskip("timm")


# The others' parts are in these, or in torchvision's, which the sample has.
SAMPLE = ("d", "s", "t", "convnext", "vit", "efficientnet v2")


@pytest.mark.parametrize(
    "case", [one if one in SAMPLE else pytest.param(one, marks=pytest.mark.whole) for one in timm_side.CASES]
)
def test_both_modes_are_timms(timm, case: str) -> None:
    """Logits, and what a pass in training mode makes of the statistics."""
    ours, theirs = timm_side.run(case)
    assert all(np.std(theirs.values[mode]["logits"]) > 1e-3 for mode in ("evaluation", "training"))
    for row in differences(ours, theirs):
        print(f"{row.kind}: {row.largest:.1e} of {row.compared:,} {row.where}")
        assert row.compared > 0 and row.largest <= TOLERANCE, row


@pytest.mark.parametrize(
    "name", [one if one in ("resnet50s", "vit_b_32") else pytest.param(one, marks=pytest.mark.whole) for one in OURS]
)
def test_names_and_shapes_of_the_whole(timm, name: str) -> None:
    import torch

    with torch.device("meta"):
        theirs = timm.create_model(TIMMS.get(name, name), pretrained=False, num_classes=1000).state_dict()
    renamed = canonical({key: np.broadcast_to(np.float32(0), tensor.shape) for key, tensor in theirs.items()})
    ours = torch_shapes(abstract(get_architecture(name).build, num_classes=1000))
    assert {key: tensor.shape for key, tensor in renamed.items()} == ours
    is_efficient = name.startswith("efficientnet")
    like_timm = {"norm_layer": partial(BatchNorm, epsilon=1e-5)} if is_efficient else {}
    tensors = {key: np.zeros(tensor.shape, np.float32) for key, tensor in theirs.items() if tensor.ndim < 2}
    for key, tensor in theirs.items():
        tensors.setdefault(key, np.broadcast_to(np.float32(0), tensor.shape))
    assert to_flax(tensors, abstract(get_architecture(name).build, num_classes=1000, **like_timm))
    assert _SAME.fullmatch(TIMMS.get(name, name))


def test_preprocessing_is_timms(timm) -> None:
    """Of all weights that timm publishes for what computes the same."""
    from timm.data import create_transform, resolve_data_config

    tagged = [one for one in timm.list_pretrained() if _SAME.fullmatch(one.partition(".")[0])]
    configurations = {one: timm.models.get_pretrained_cfg(one).to_dict() for one in tagged}
    assert {"resnet18d.ra2_in1k", "resnet101d.ra2_in1k", "vit_base_patch16_384.augreg_in1k"} <= set(configurations)
    assert len(configurations) > 150
    for name, given in configurations.items():
        ours, wanted = preprocessing_of(given), resolve_data_config(pretrained_cfg=given)
        assert (3, ours.image_size, ours.image_size) == tuple(wanted["input_size"]), name
        assert (ours.interpolation, ours.mean, ours.std) == tuple(
            wanted[key] if key == "interpolation" else tuple(wanted[key]) for key in ("interpolation", "mean", "std")
        )
        if wanted["crop_mode"] == "center":
            resize, crop, *_ = create_transform(**wanted).transforms
            assert (ours.resize, (ours.image_size,) * 2) == (resize.size, tuple(crop.size)), name
            assert ours.interpolation == resize.interpolation.value
