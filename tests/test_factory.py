"""`create_model`: weights from files, heads that start where the file has none, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

import weights_conversion
from facefeat_jax import Task, UserError, create_model
from facefeat_jax.models import resnet18
from weights_conversion import to_torch


@pytest.fixture(scope="module")
def trunk_tensors():
    """A trunk with a classifier, as torchvision's ImageNet file has one: no counters, so 102 entries."""
    shapes = to_torch_shapes(nnx.eval_shape(lambda: resnet18(num_classes=1000, rngs=nnx.Rngs(0))))
    random = np.random.RandomState(0)
    return {name: random.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def to_torch_shapes(model):
    from weights_conversion.convert import _entries

    shapes = {name: layout.torch_array(np.empty(variable.shape)).shape for variable, name, layout in _entries(model)}
    return {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}


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


def test_random_weights_are_those_of_the_seed():
    one, same, other = (to_torch(create_model(rngs=nnx.Rngs(seed))) for seed in (3, 3, 4))
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
    ],
)
def test_what_there_is_not_is_said(arguments, message):
    with pytest.raises(UserError, match=message):
        create_model(**arguments)


def test_weights_that_diverged_are_refused(trunk_tensors, tmp_path):
    broken = {**trunk_tensors, "bn1.bias": np.full(64, np.inf, np.float32)}
    weights_conversion.write(tmp_path / "broken.pth", broken)
    with pytest.raises(UserError, match=r"NaN or infinity in 'bn1\.bias'"):
        create_model(weights=tmp_path / "broken.pth")
