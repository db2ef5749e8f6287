"""Weights of timm's in our trunks, against timm's own modules: names, numbers in float64, and preprocessing."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from facefeat_jax.models import BatchNorm, Bottleneck, ConvNeXt, ResNet, VisionTransformer, abstract, get_architecture
from facefeat_jax.models.efficientnet import V2_SMALL, EfficientNetV2Small, Scale, efficientnet_b0
from facefeat_jax.models.registry import ARCHITECTURES
from facefeat_jax.models.resnet import resnet18, resnet18d
from weights_conversion import to_flax, to_torch
from weights_conversion._names import canonical
from weights_conversion._timm_names import _SAME
from weights_conversion._with_torch import import_torchvision
from weights_conversion.convert import torch_shapes
from weights_conversion.timm_hub import preprocessing_of

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


# The others' parts are in these, or in torchvision's, which the sample has.
SAMPLE = ("d", "s", "t", "convnext", "vit", "efficientnet v2")


@pytest.mark.parametrize(
    "case", [one if one in SAMPLE else pytest.param(one, marks=pytest.mark.whole) for one in CASES]
)
def test_both_modes_are_timms(timm, case: str) -> None:
    """Logits, and what a pass in training mode makes of the statistics."""
    import jax
    import jax.numpy as jnp
    import torch
    from flax import nnx

    name, theirs_options, build, side = CASES[case]
    theirs = timm.create_model(name, pretrained=False, num_classes=5, drop_rate=0.0, **theirs_options).double().eval()
    tensors = _moved(theirs)
    pixels = np.random.RandomState(1).standard_normal((4, side, side, 3))
    with torch.no_grad():
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        expected = [theirs(images).numpy(), theirs.train()(images).numpy()]
    moved = canonical({key: tensor.numpy() for key, tensor in theirs.state_dict().items()})
    with jax.enable_x64(True):
        trunk = to_flax(tensors, abstract(build, num_classes=5, param_dtype="float64"))
        trunk.set_attributes(rate=0.0, raise_if_not_found=False)

        @jax.jit
        def run(state, images):
            evaluating, training = nnx.merge(graphdef, state), nnx.merge(graphdef, state, copy=True)
            evaluating.eval()
            training.train()
            return evaluating(images), training(images), nnx.state(training)

        graphdef, state = nnx.split(trunk)
        *logits, after = run(state, jnp.asarray(pixels))
        statistics = to_torch(nnx.merge(graphdef, after))
    for ours, wanted in zip(logits, expected, strict=True):
        assert np.std(wanted) > 1e-3
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-9 * abs(wanted).max())
    assert statistics.keys() == moved.keys()
    for key, ours in statistics.items():
        np.testing.assert_allclose(ours, moved[key], rtol=1e-9, atol=1e-9 * abs(moved[key]).max(), err_msg=key)


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
