"""Weights of timm's in our trunks, against timm's own modules, in float64. Skipped where timm is not installed."""

from __future__ import annotations

import numpy as np
import pytest

from facefeat_jax.models import ResNet, VisionTransformer, abstract, efficientnet_b0
from facefeat_jax.models.convnext import ConvNeXt
from weights_conversion import to_flax
from weights_conversion._with_torch import import_torchvision

CASES = {
    "resnet18": ({}, ResNet, {"stage_sizes": (2, 2, 2, 2)}),
    "convnext_tiny": (
        {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)},
        ConvNeXt,
        {"depths": (1, 2, 1, 1), "widths": (8, 16, 24, 32)},
    ),
    "vit_base_patch16_224": (
        {"depth": 2, "embed_dim": 24, "num_heads": 3, "patch_size": 8, "img_size": 32},
        VisionTransformer,
        {"patch": 8, "depth": 2, "width": 24, "heads": 3, "hidden": 96, "image_size": 32},
    ),
    "efficientnet_b0": ({}, efficientnet_b0, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_timms(name: str) -> None:
    import_torchvision()
    timm = pytest.importorskip("timm")
    import jax
    import jax.numpy as jnp
    import torch
    from flax import nnx

    theirs_options, build, options = CASES[name]
    theirs = timm.create_model(name, num_classes=5, **theirs_options).double().eval()
    stream = np.random.RandomState(0)
    tensors = {}
    for key, tensor in theirs.state_dict().items():
        array = tensor.numpy()
        if array.ndim == 1:
            array = stream.uniform(0.5, 1.5, array.shape)
        elif array.ndim > 1:
            array = stream.standard_normal(array.shape) / np.sqrt(np.prod(array.shape[1:]))
        tensors[key] = array
    theirs.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in tensors.items()})
    pixels = stream.standard_normal((2, 32, 32, 3))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()
    with jax.enable_x64(True):
        trunk = to_flax(tensors, abstract(build, num_classes=5, param_dtype="float64", **options))
        trunk.eval()
        graphdef, state = nnx.split(trunk)
        logits = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, jnp.asarray(pixels))
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
