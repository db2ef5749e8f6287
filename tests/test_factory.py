"""`create_model`: weights from files, heads that start where the file has none, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import weights_conversion
from facefeat_jax import Task, UserError, create_model
from facefeat_jax.models import abstract, resnet18
from facefeat_jax.models.abstract import seeded
from facefeat_jax.models.registry import get_architecture
from weights_conversion import to_torch
from weights_conversion.convert import torch_shapes


@pytest.fixture(scope="module")
def trunk_tensors():
    """A trunk with a classifier, as torchvision's ImageNet file has one: no counters, so 102 entries."""
    shapes = torch_shapes(abstract(resnet18, num_classes=1000))
    random = np.random.RandomState(0)
    return {
        name: random.uniform(0.1, 1, shape).astype(np.float32)
        for name, shape in shapes.items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def trunk_file(trunk_tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    weights_conversion.write(path, trunk_tensors)
    return path


def test_an_imagenet_file_fills_the_trunk_and_leaves_the_heads_as_they_start(trunk_tensors, trunk_file):
    assert len(trunk_tensors) == 102
    one = to_torch(create_model(weights=trunk_file, rngs=nnx.Rngs(1)))
    same = to_torch(create_model(weights=trunk_file, rngs=nnx.Rngs(1)))
    other = to_torch(create_model(weights=trunk_file, rngs=nnx.Rngs(2)))
    for name, tensor in trunk_tensors.items():
        if not name.startswith("fc."):
            np.testing.assert_array_equal(one[f"backbone.{name}"], tensor, err_msg=name)
    assert len(one) == 132
    assert one["backbone.bn1.num_batches_tracked"] == 0
    heads = [name for name in one if "_head." in name]
    assert len(heads) == 12
    for name in heads:
        np.testing.assert_array_equal(one[name], same[name])
        assert not np.array_equal(one[name], other[name])
        assert np.abs(one[name]).max() <= (512 if ".0." in name else 256) ** -0.5


def test_imagenet_weights_come_from_the_cache_by_name(trunk_file, monkeypatch):
    asked = []
    monkeypatch.setattr(weights_conversion, "fetch", lambda name: asked.append(name) or trunk_file)
    create_model(weights="imagenet", tasks=["glasses"])
    assert asked == ["resnet18-f37072fd"]


def test_random_weights_are_those_of_the_seed(small_trunk):
    one, same, other = (to_torch(create_model(small_trunk, rngs=nnx.Rngs(seed))) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_a_task_of_ones_own_gets_a_head(trunk_file):
    model = create_model(weights=trunk_file, tasks=["gender", Task("hat", ("none", "cap", "helmet"), source="mine")])
    assert {name: head.output.out_features for name, head in model.heads.items()} == {"gender": 1, "hat": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "Did you mean 'resnet18'"),
        ({"tasks": ["glases"]}, "Did you mean 'glasses'"),
        ({"weights": "nowhere.pth"}, "no such file"),
        ({"num_classes": 5}, "num_classes is for a trunk alone"),
        ({"num_classes": None}, "num_classes is for a trunk alone"),
        ({"weights": True}, "weights must be a name"),
        ({"weights": 0}, "weights must be a name"),
        ({"weights": "IMAGENET1K_V7"}, "IMAGENET1K_V7 of resnet18; it has IMAGENET1K_V1"),
        ({"weights": "ResNet50_Weights.IMAGENET1K_V2"}, "of resnet18; it has IMAGENET1K_V1"),
        ({"rngs": 0}, "rngs must be flax.nnx.Rngs"),
        ({"tasks": None}, "tasks must be names or tasks"),
        ({"tasks": [3]}, "unknown task '3'"),
        ({"tasks": ["gender", "glasses", "gender"]}, "the task 'gender' appears twice"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        create_model(**arguments)
    assert "\n" not in str(caught.value)


def test_weights_by_their_names_and_by_torchvisions(monkeypatch):
    asked = []

    def fetch(name):
        asked.append(name)
        raise UserError("no network here")

    class Enum:  # as torchvision's members print themselves
        def __str__(self):
            return "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"

    monkeypatch.setattr(weights_conversion, "fetch", fetch)
    wanted = {
        ("resnet50", "imagenet"): "resnet50-11ad3fa6",
        ("resnet50", "resnet50-0676ba61"): "resnet50-0676ba61",
        ("resnet50", "DEFAULT"): "resnet50-11ad3fa6",
        ("resnet50", "IMAGENET1K_V2"): "resnet50-11ad3fa6",
        ("resnet50", "IMAGENET1K_V1"): "resnet50-0676ba61",
        ("resnet50", "ResNet50_Weights.IMAGENET1K_V1"): "resnet50-0676ba61",
        ("efficientnet_b1", "EfficientNet_B1_Weights.DEFAULT"): "efficientnet_b1-c27df63c",
        ("vit_b_16", Enum()): "vit_b_16_swag-9ac1b537",
    }
    for trunk, weights in wanted:
        with pytest.raises(UserError, match="no network"):
            create_model(trunk, weights=weights)
    assert asked == list(wanted.values())
    with pytest.raises(UserError, match=r"resnet50, not of resnet18, .*resnet18-f37072fd"):
        create_model("resnet18", weights="resnet50-0676ba61")


def test_no_weights_are_random_ones(small_trunk):
    one, other = (to_torch(create_model(small_trunk, weights=weights)) for weights in (None, "random"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_model_without_heads_is_there_for_its_trunk(small_trunk):
    model = create_model(small_trunk, tasks=[])
    with pytest.raises(ValueError, match=r"no head to run: .*model\.trunk"):
        model(jnp.zeros((1, 32, 32, 3)))
    assert list(create_model(small_trunk, tasks="glasses").heads) == ["glasses"]


@pytest.mark.parametrize("width", [0, -1, True, 2.0, "5"])
@pytest.mark.parametrize("option", ["num_classes", "in_channels"])
@pytest.mark.parametrize("trunk", ["resnet18", "efficientnet_b0", "vit_b_16"])
def test_a_layer_of_no_width_is_refused(trunk, option, width, unchecked):
    with pytest.raises(ValueError, match=f"{option} must be a whole number from 1 up"):
        abstract(get_architecture(trunk).build, **{option: width})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": "ab"}, "takes a list of names"),
        ({"classes": ("a", "")}, "text that a terminal can show"),
        ({"classes": ("a", 1)}, "takes a list of names"),
        ({"classes": ("a", "a")}, "different class names"),
        ({"name": "my task"}, "letters, digits and _"),
        ({"name": ""}, "letters, digits and _"),
        ({"frame": "elbow"}, "unknown frame 'elbow'"),
    ],
)
def test_a_task_that_no_head_can_have_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Task(**{"name": "hat", "classes": ("no", "yes"), **fields})
    assert Task("hat", ["no", "yes"]).classes == ("no", "yes")


def test_weights_that_diverged_are_refused(trunk_tensors, tmp_path):
    broken = {**trunk_tensors, "bn1.bias": np.full(64, np.inf, np.float32)}
    weights_conversion.write(tmp_path / "broken.pth", broken)
    with pytest.raises(UserError, match=r"NaN or infinity in 'bn1\.bias'"):
        create_model(weights=tmp_path / "broken.pth")


def test_weights_of_another_architecture_are_recognised(trunk_tensors, trunk_file, tmp_path):
    with pytest.raises(UserError, match=r"does not fit .*looks like resnet18\.") as caught:
        create_model("resnet50", weights=trunk_file)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"does not fit .*looks like resnet18\."):
        create_model("vit_b_32", weights=trunk_file)
    grey = {**trunk_tensors, "conv1.weight": trunk_tensors["conv1.weight"][:, :1]}
    weights_conversion.write(tmp_path / "grey.pth", grey)
    with pytest.raises(UserError, match=r"conv1\.weight is \(64, 1, 7, 7\) where \(64, 3, 7, 7\) is needed"):
        create_model(weights=tmp_path / "grey.pth")
    model = create_model(weights=tmp_path / "grey.pth", in_channels=1, tasks=["glasses"])
    assert model.trunk.in_channels == 1


def test_positions_are_resized_and_older_names_are_read(tiny_trunks, tmp_path):
    shapes = torch_shapes(abstract(get_architecture(tiny_trunks["vit"]).build, num_classes=3, image_size=16))
    stream = np.random.RandomState(0)
    tensors = {name: np.resize(stream.standard_normal(97).astype(np.float32), shape) for name, shape in shapes.items()}
    older = {n.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): t for n, t in tensors.items()}
    assert set(older) != set(tensors)
    weights_conversion.write(tmp_path / "vit.safetensors", older)
    same, other = (
        create_model(tiny_trunks["vit"], weights=tmp_path / "vit.safetensors", tasks=["glasses"], image_size=size)
        for size in (16, 24)
    )
    for name, tensor in to_torch(same.trunk).items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)
    positions = to_torch(other.trunk)["encoder.pos_embedding"]
    assert positions.shape == (1, 10, 24)
    # 2 by 2 patches become 3 by 3; the class token and the corners stay.
    np.testing.assert_allclose(positions[0, [0, 1, 3, 7, 9]], tensors["encoder.pos_embedding"][0])


@pytest.mark.parametrize("seed", [0, 3, 2**31 - 1])
def test_a_source_of_random_numbers_that_compiles_nothing_gives_what_flaxs_gives(seed):
    ours, flaxs = seeded(seed), nnx.Rngs(seed)
    for _ in range(2):
        assert jax.random.key_data(ours.params()).tolist() == jax.random.key_data(flaxs.params()).tolist()
    assert nnx.graphdef(ours) == nnx.graphdef(flaxs)
