"""Labels of parameters: layers and decay as timm has them, in every family, and what optax makes of them."""

from __future__ import annotations

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from facefeat_jax.models import (
    MultiTaskModel,
    ResNet,
    VisionTransformer,
    abstract,
    get_architecture,
    parameter_groups,
    parameter_labels,
    resnet18,
)
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import TASKS

from ..made import filled


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


# timm 1.0.31, `param_groups_layer_decay(create_model(name), no_weight_decay_list=model.no_weight_decay())`: numbers of
# parameters in each layer with decay, and without. timm counts the last normalisation of a ConvNeXt to the classifier.
TIMM = {
    "resnet18": (
        [9408, 73728, 73728, 229376, 294912, 917504, 1179648, 3670016, 4718592, 512000],
        [128, 256, 256, 768, 512, 1536, 1024, 3072, 2048, 1000],
    ),
    "vit_b_16": ([589824, *[7077888] * 12, 768000], [152832, *[9984] * 11, 11520, 1000]),
    "convnext_tiny": (
        [4608, *[78432] * 3, 378048, 304320, 304320, 1493376, *[1198464] * 8, 5935872, 4756224, 4756224, 768000],
        [288, *[864] * 3, 2112, 1728, 1728, 4224, *[3456] * 8, 8448, 6912, 6912 + 1536, 2536 - 1536],
    ),
    "efficientnet_b0": (
        numbers(
            "864 1312 5472 9936 14544 30000 35760 100320 100320 123360 204960 204960 258720 581760 581760 581760 "
            "1120384 1280000"
        ),
        numbers("64 136 532 774 806 1290 1370 2580 2580 2644 3612 3612 3772 6192 6192 6192 9008 1000"),
    ),
}


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_b_16", *(pytest.param(n, marks=pytest.mark.slow) for n in list(TIMM)[2:])]
)
def test_layers_are_timms(name: str) -> None:
    model = abstract(get_architecture(name).build, num_classes=1000)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    labels, sizes = parameter_labels(model, params), Counter()
    for label, value in zip(jax.tree.leaves(labels), jax.tree.leaves(params), strict=True):
        sizes[label] += math.prod(value.shape)
    decayed, others = TIMM[name]
    assert len(decayed) == len(others)
    assert sizes == {
        f"layer_{number}_{kind}": size
        for kind, counts in (("decay", decayed), ("no_decay", others))
        for number, size in enumerate(counts)
    }
    groups = parameter_groups(labels, layer_decay=0.75)
    last = len(decayed) - 1
    assert groups[f"layer_{last}_decay"] == (last, 1.0, True)
    assert groups["layer_0_no_decay"] == (0, 0.75**last, False)


def test_stages_are_frozen_and_numbered_and_heads_come_last() -> None:
    rngs = nnx.Rngs(0)
    model = MultiTaskModel(abstract(resnet18), [TASKS["gender"]], rngs=rngs)
    labels = parameter_labels(model, trainable=("layer3", "layer4"), coarse=True)
    trunk = labels["trunk"]
    assert trunk["conv1"]["kernel"] == trunk["layer2"][0]["bn1"]["scale"] == "frozen"
    assert trunk["layer3"][1]["conv1"]["kernel"] == "layer_3_decay"
    assert trunk["layer4"][0]["bn2"]["bias"] == "layer_4_no_decay"
    assert labels["heads"]["gender"]["output"] == {"kernel": "layer_5_decay", "bias": "layer_5_no_decay"}
    groups = parameter_groups(labels, layer_decay=0.5)
    assert groups["frozen"] == (None, 0.0, False)
    assert groups["layer_3_decay"] == (3, 0.25, True)
    with pytest.raises(UserError, match="layer5"):
        parameter_labels(model, trainable="layer5")


def test_tokens_positions_and_an_ensembles_biases_have_no_decay() -> None:
    vit = abstract(VisionTransformer, 8, 2, 24, 3, 48, image_size=16)
    stem = nnx.to_pure_dict(parameter_labels(vit))["stem"]
    assert stem["class_token"] == stem["positions"] == "layer_0_no_decay"
    assert stem["projection"] == {"kernel": "layer_0_decay", "bias": "layer_0_no_decay"}
    many = jax.tree.map(lambda value: jnp.zeros((3, *value.shape)), nnx.to_pure_dict(nnx.state(vit, nnx.Param)))
    assert parameter_labels(vit, many) == nnx.to_pure_dict(parameter_labels(vit))


def test_optax_and_nnx_take_the_labels() -> None:
    """Frozen stages stand still, the first step of Adam is the scaled rate, and what decays shrinks."""
    model = filled(abstract(ResNet, (1, 1, 1, 1), width=8, num_classes=3))
    labels = parameter_labels(model, trainable=("layer3", "layer4"))
    by_label = {
        name: optax.adamw(0.1 * group.lr_scale, weight_decay=0.5 * group.decays)
        if group.lr_scale
        else optax.set_to_zero()
        for name, group in parameter_groups(labels, layer_decay=0.5).items()
    }
    optimizer = nnx.Optimizer(model, optax.multi_transform(by_label, labels), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))

    @nnx.jit
    def update(optimizer, model):
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))

    update(optimizer, model)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    np.testing.assert_array_equal(after["layer2"][0]["conv1"]["kernel"], before["layer2"][0]["conv1"]["kernel"])
    for place, scale in (("layer3", 0.25), ("layer4", 0.5)):
        old, new = (tree[place][0] for tree in (before, after))
        np.testing.assert_allclose(new["bn1"]["bias"], old["bn1"]["bias"] - 0.1 * scale, rtol=1e-4)
        kernel = old["conv2"]["kernel"]
        np.testing.assert_allclose(
            new["conv2"]["kernel"], kernel - 0.1 * scale * (1 + 0.5 * kernel), rtol=1e-3, atol=1e-5
        )
