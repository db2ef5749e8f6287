"""State dicts to modules and back: the table, the layout, strictness and its exceptions."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from facefeat_jax.models import MultiTaskModel, ResNet, abstract, resnet18
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import TASKS, Task
from weights_conversion import WeightsMismatchError, check_finite, to_flax, to_torch
from weights_conversion import _names as names

from ..made import filled

ALL_TASKS = tuple(TASKS.values())

# Flax's path of one tensor of every kind, its name in torch, and torch's axes as Flax has them.
PLACES = {
    "conv1.weight": (lambda trunk: trunk.conv1.kernel, (2, 3, 1, 0)),
    "bn1.weight": (lambda trunk: trunk.bn1.scale, None),
    "bn1.bias": (lambda trunk: trunk.bn1.bias, None),
    "bn1.running_mean": (lambda trunk: trunk.bn1.mean, None),
    "bn1.running_var": (lambda trunk: trunk.bn1.var, None),
    "layer1.0.bn1.running_var": (lambda trunk: trunk.layer1[0].bn1.var, None),
    "layer1.1.bn2.running_mean": (lambda trunk: trunk.layer1[1].bn2.mean, None),
    "layer2.0.bn2.weight": (lambda trunk: trunk.layer2[0].bn2.scale, None),
    "layer2.0.downsample.1.bias": (lambda trunk: trunk.layer2[0].downsample_bn.bias, None),
    "layer2.1.bn1.running_var": (lambda trunk: trunk.layer2[1].bn1.var, None),
    "layer2.1.bn2.weight": (lambda trunk: trunk.layer2[1].bn2.scale, None),
    "layer3.0.bn1.running_mean": (lambda trunk: trunk.layer3[0].bn1.mean, None),
    "layer4.0.downsample.0.weight": (lambda trunk: trunk.layer4[0].downsample_conv.kernel, (2, 3, 1, 0)),
    "layer4.1.bn2.weight": (lambda trunk: trunk.layer4[1].bn2.scale, None),
}


def _abstract_trunk(num_classes: int | None = None, param_dtype=jnp.float32) -> ResNet:
    """A trunk with one block per stage and shapes in place of weights."""
    return abstract(ResNet, (1, 1, 1, 1), num_classes=num_classes, param_dtype=param_dtype)


def _abstract_model(tasks=ALL_TASKS) -> MultiTaskModel:
    return abstract(lambda rngs: MultiTaskModel(ResNet((1, 1, 1, 1), rngs=rngs), tasks, rngs=rngs))


def _state_dict(model: nnx.Module, seed: int = 0) -> dict[str, np.ndarray]:
    """Numbers under torch's names and shapes that fit an abstract model; no two tensors hold the same."""
    translate = names.translator(names.table(model))
    stream, result = np.random.RandomState(seed), {}
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Param | nnx.BatchStat):
            name, layout = translate(".".join(map(str, path)))
            values = stream.standard_normal(node.shape).astype(np.float32)
            result[name] = layout.torch_array(values) if node.shape else np.array(stream.randint(1, 99), np.int64)
    return result


def _values(model: nnx.Module) -> dict:
    return {
        path: np.array(node.get_value())
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.Param | nnx.BatchStat)
    }


# --- The real file of torchvision


@pytest.fixture
def torchvision_shapes(realdata: Path) -> dict[str, tuple[int, ...]]:
    text = (realdata / "torchvision_resnet18" / "resnet18-f37072fd.shapes.json").read_text()
    return {name: tuple(shape) for name, shape in json.loads(text).items()}


@pytest.mark.realdata
def test_the_102_real_keys_fit_the_table_exactly(torchvision_shapes: dict[str, tuple[int, ...]]) -> None:
    """Every key is used and every tensor filled, with a classifier; to_torch gives the same keys and shapes back."""
    assert len(torchvision_shapes) == 102
    stream = np.random.RandomState(0)
    tensors = {n: stream.standard_normal(shape).astype(np.float32) for n, shape in torchvision_shapes.items()}
    model = to_flax(tensors, abstract(resnet18, num_classes=1000))
    back = to_torch(model)
    counters = {name for name in back if name.endswith("num_batches_tracked")}
    assert len(counters) == 20
    assert set(back) - counters == set(torchvision_shapes)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)
    assert all(back[name] == 0 and back[name].dtype == np.int64 and back[name].shape == () for name in counters)


@pytest.mark.realdata
def test_without_a_classifier_only_fc_is_left_out(torchvision_shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = {name: np.ones(shape, np.float32) for name, shape in torchvision_shapes.items()}
    back = to_torch(to_flax(tensors, abstract(resnet18)))
    assert set(torchvision_shapes) - set(back) == {"fc.weight", "fc.bias"}


@pytest.mark.realdata
@pytest.mark.parametrize("file", ["f37072fd", "5c106cde"])
def test_genuine_tensors_pin_the_layout(
    realdata: Path, torchvision_shapes: dict[str, tuple[int, ...]], file: str
) -> None:
    with np.load(realdata / "torchvision_resnet18" / f"resnet18-{file}.partial.npz") as arrays:
        genuine = dict(arrays)
    assert genuine
    tensors = {name: np.zeros(shape, np.float32) for name, shape in torchvision_shapes.items()}
    for name, tensor in genuine.items():
        assert tensor.shape == torchvision_shapes[name]
    trunk = to_flax({**tensors, **genuine}, abstract(resnet18))
    checked = 0
    for name, (place, axes) in PLACES.items():
        if name in genuine:
            expected = genuine[name] if axes is None else genuine[name].transpose(axes)
            np.testing.assert_array_equal(place(trunk).get_value(), expected, err_msg=name)
            checked += 1
    assert checked >= 5
    back = to_torch(trunk)
    for name, tensor in genuine.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


# --- Without it


def test_every_kind_of_tensor_lands_in_its_place() -> None:
    model = _abstract_model()
    tensors = _state_dict(model)
    to_flax(tensors, model)
    for name, (place, axes) in PLACES.items():
        if ".1." in name.removeprefix("layer").replace("downsample.1", ""):
            continue  # a second block, which this model has not
        tensor = tensors[f"backbone.{name}"]
        np.testing.assert_array_equal(
            place(model.trunk).get_value(), tensor if axes is None else tensor.transpose(axes), err_msg=name
        )
    for task in TASKS:
        for index, layer in ((0, model.heads[task].hidden), (2, model.heads[task].output)):
            np.testing.assert_array_equal(layer.kernel.get_value(), tensors[f"{task}_head.{index}.weight"].T)
            np.testing.assert_array_equal(layer.bias.get_value(), tensors[f"{task}_head.{index}.bias"])
    assert int(model.trunk.bn1.num_batches_tracked.get_value()) == tensors["backbone.bn1.num_batches_tracked"]


def test_there_and_back_is_bit_identical() -> None:
    model = _abstract_model()
    tensors = _state_dict(model)
    back = to_torch(to_flax(tensors, model))
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype, name
        assert back[name].flags.c_contiguous, name
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_loading_into_an_abstract_model_makes_a_whole_one() -> None:
    model = _abstract_model()
    assert isinstance(model.trunk.conv1.kernel.get_value(), jax.ShapeDtypeStruct)
    to_flax(_state_dict(model), model)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    model.eval()
    assert jax.eval_shape(model, jnp.zeros((2, 64, 64, 3)))["shirt"].shape == (2, 8)


def test_values_take_the_models_dtype() -> None:
    with jax.enable_x64(True):
        trunk = _abstract_trunk(param_dtype=jnp.float64)
        tensors = {n: t.astype(np.float64) / 3 if t.shape else t for n, t in _state_dict(trunk).items()}
        to_flax(tensors, trunk)
        assert trunk.bn1.var.get_value().dtype == jnp.float64
        np.testing.assert_array_equal(to_torch(trunk)["bn1.running_var"], tensors["bn1.running_var"])
    narrow = to_flax(tensors, _abstract_trunk(param_dtype=jnp.bfloat16))
    assert narrow.conv1.kernel.get_value().dtype == jnp.bfloat16
    assert narrow.bn1.num_batches_tracked.get_value().dtype == jnp.int32


# --- Named exceptions


def test_counters_may_be_missing_and_are_always_written() -> None:
    trunk = _abstract_trunk()
    tensors = {n: t for n, t in _state_dict(trunk).items() if not n.endswith("num_batches_tracked")}
    back = to_torch(to_flax(tensors, trunk))
    counters = {name: value for name, value in back.items() if name.endswith("num_batches_tracked")}
    assert len(counters) == len(back) - len(tensors) == 12
    assert all(value == 0 for value in counters.values())


def test_fc_is_dropped_only_where_there_is_no_classifier() -> None:
    tensors = _state_dict(_abstract_trunk(num_classes=10))
    assert "fc.weight" not in to_torch(to_flax(tensors, _abstract_trunk()))
    with_classifier = to_flax(tensors, _abstract_trunk(num_classes=10))
    np.testing.assert_array_equal(with_classifier.fc.kernel.get_value(), tensors["fc.weight"].T)
    model = _abstract_model()
    backbone_with_fc = {**_state_dict(model), "backbone.fc.weight": tensors["fc.weight"]}
    assert "backbone.fc.weight" not in to_torch(to_flax(backbone_with_fc, model))
    with pytest.raises(WeightsMismatchError, match=r"2 missing: fc\.weight, fc\.bias|2 missing: fc\.bias, fc\.weight"):
        without = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
        to_flax(without, _abstract_trunk(num_classes=10))
    with pytest.raises(WeightsMismatchError, match="fully_connected"):
        to_flax({**tensors, "fully_connected.weight": tensors["fc.weight"]}, _abstract_trunk())


def test_heads_keep_their_start_when_a_trunk_alone_is_loaded() -> None:
    model = _abstract_model()
    to_flax(_state_dict(model, seed=1), model)
    heads = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model.heads, nnx.Param)))
    trunk = _state_dict(_abstract_trunk(num_classes=10), seed=2)
    to_flax(trunk, model)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model.heads, nnx.Param)), heads)
    np.testing.assert_array_equal(model.trunk.bn1.scale.get_value(), trunk["bn1.weight"])


# --- Strictness


def test_all_errors_are_in_one_message_and_nothing_is_changed() -> None:
    model = _abstract_model()
    tensors = _state_dict(model)
    to_flax(tensors, model)
    before = _values(model)
    wrong = {name: tensor + 1 for name, tensor in tensors.items()}
    wrong["backbone.conv1.weight"] = np.zeros((64, 1, 7, 7), np.float32)
    wrong["shirt_head.2.weight"] = np.zeros((5, 256), np.float32)
    del wrong["backbone.layer3.0.bn2.running_var"]
    wrong["backbone.layer5.0.conv1.weight"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsMismatchError) as caught:
        to_flax(wrong, model, source="some.pth")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("some.pth does not fit this ResNet")
    assert "backbone.conv1.weight is (64, 1, 7, 7) where (64, 3, 7, 7) is needed" in message
    assert "shirt_head.2.weight is (5, 256) where (8, 256) is needed" in message
    assert "1 missing: backbone.layer3.0.bn2.running_var" in message
    assert "backbone.layer5.0.conv1.weight" in message
    assert isinstance(caught.value, UserError)
    after = _values(model)
    assert all(np.array_equal(after[path], value) for path, value in before.items())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.ones(1, np.complex64), "is of type complex64"),
        (np.ones(1, np.int8), "is of type int8"),
        (np.ones(1, np.bool_), "is of type bool"),
        (np.full(1, -1e300), "holds values beyond what float32 can"),
    ],
)
def test_values_that_would_become_others_are_refused(values: np.ndarray, says: str) -> None:
    """jax would drop an imaginary part and make infinities of large numbers without a word."""
    model = filled(_abstract_trunk())
    before = to_torch(model)
    state_dict = {**before, "bn1.weight": np.repeat(values, 64)}
    with pytest.raises(WeightsMismatchError, match=rf"bn1.weight {says}"):
        to_flax(state_dict, model, source="w.pth")
    with pytest.raises(WeightsMismatchError, match="num_batches_tracked is of type complex64"):
        to_flax({**before, "bn1.num_batches_tracked": np.complex64(1)}, model)
    np.testing.assert_array_equal(to_torch(model)["bn1.weight"], before["bn1.weight"])


@pytest.mark.parametrize(
    ("counter", "count"),
    [
        (np.array([7], np.int64), 7),
        (np.float16(7), 7),
        (np.array([7.0], np.float64), 7),
        (np.float32(6.9999995), 7),
        (np.array(7, ml_dtypes.bfloat16), 7),
        (np.float16(np.inf), 0),
    ],
)
def test_counters_that_an_average_or_half_has_changed_are_taken(counter, count) -> None:
    state_dict = {**_state_dict(_abstract_trunk()), "bn1.num_batches_tracked": counter}
    check_finite(state_dict, "w.pth")
    after = to_torch(to_flax(state_dict, _abstract_trunk()))
    assert after["bn1.num_batches_tracked"] == count and after["bn1.num_batches_tracked"].shape == ()


def test_the_same_number_of_values_in_another_order_of_axes_is_refused() -> None:
    trunk = _abstract_trunk()
    tensors = _state_dict(trunk)
    tensors["conv1.weight"] = tensors["conv1.weight"].transpose(2, 3, 1, 0)
    with pytest.raises(WeightsMismatchError, match=r"conv1\.weight is \(7, 7, 3, 64\) where \(64, 3, 7, 7\) is needed"):
        to_flax(tensors, trunk)


def test_heads_of_other_tasks_are_refused() -> None:
    hats = (*TASKS.values(), Task("hat", ("no_hat", "hat"), source=""))
    with pytest.raises(WeightsMismatchError, match=r"4 missing: hat_head\.0"):
        to_flax(_state_dict(_abstract_model()), _abstract_model(hats))
    with pytest.raises(WeightsMismatchError, match=r"4 .*no place for: hat_head\.0"):
        to_flax(_state_dict(_abstract_model(hats)), _abstract_model())


def test_weights_of_a_deeper_network_are_refused() -> None:
    deeper = _state_dict(abstract(resnet18))
    with pytest.raises(WeightsMismatchError, match=r"no place for: layer1\.1\."):
        to_flax(deeper, _abstract_trunk())
    with pytest.raises(WeightsMismatchError, match="missing"):
        to_flax({}, _abstract_trunk())


def test_every_tensor_has_a_row_and_no_two_share_a_name() -> None:
    model = abstract(resnet18, num_classes=1000)
    translate = names.translator(names.table(model))
    paths = [".".join(map(str, path)) for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Variable)]
    assert len(paths) == 122
    assert len({translate(path)[0] for path in paths}) == 122
    with pytest.raises(KeyError, match=r"layer1\.0\.conv1\.gamma"):
        translate("layer1.0.conv1.gamma")
