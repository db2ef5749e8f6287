"""The trunk and the multi-task model: shapes, dtypes, what is refused, and graph-free trees."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import facefeat_jax
from facefeat_jax.models import MultiTaskModel, ResNet, abstract, list_models, normalize, resnet18
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps

from ..made import filled


def small_model(dtype=None, param_dtype=jnp.float32) -> MultiTaskModel:
    """A model with one block per stage: every kind of layer, half the compile time."""

    def build(rngs: nnx.Rngs) -> MultiTaskModel:
        trunk = ResNet((1, 1, 1, 1), dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        return MultiTaskModel(trunk, TASKS.values(), dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    return filled(abstract(build))


@pytest.fixture(scope="module")
def trunk() -> ResNet:
    return filled(abstract(resnet18))


def test_stages_and_pooled_features(trunk: ResNet) -> None:
    trunk.eval()
    images = jnp.asarray(np.random.RandomState(0).standard_normal((2, 64, 96, 3)), jnp.float32)
    order: list[str] = []

    def stages(images):
        maps = trunk.stages(images)
        order.extend(maps)  # JAX sorts what it returns
        return maps

    shapes = {name: value.shape for name, value in jax.eval_shape(stages, images).items()}
    assert shapes == {
        "stem": (2, 16, 24, 64),
        "layer1": (2, 16, 24, 64),
        "layer2": (2, 8, 12, 128),
        "layer3": (2, 4, 6, 256),
        "layer4": (2, 2, 3, 512),
    }
    assert order == list(ResNet.STAGES)
    small = filled(abstract(ResNet, (1, 1, 1, 1), width=8))
    small.eval()
    pooled, maps = nnx.jit(lambda trunk: (trunk(images), trunk.stages(images)))(small)
    np.testing.assert_allclose(pooled, maps["layer4"].mean((1, 2)), rtol=1e-6, atol=1e-7)


def test_sides_that_are_not_multiples_of_32(trunk: ResNet) -> None:
    trunk.eval()
    maps = jax.eval_shape(trunk.stages, jnp.zeros((1, 71, 50, 3)))
    assert [maps[name].shape[1:3] for name in ResNet.STAGES] == [(18, 13), (18, 13), (9, 7), (5, 4), (3, 2)]


def test_parameter_count(trunk: ResNet) -> None:
    count = sum(value.size for value in jax.tree.leaves(nnx.state(trunk, nnx.Param)))
    assert count == 11_176_512  # torchvision's 11,689,512 less fc's 513,000
    with_classifier = abstract(resnet18, num_classes=1000)
    assert sum(value.size for value in jax.tree.leaves(nnx.state(with_classifier, nnx.Param))) == 11_689_512


def test_a_classifier_gives_logits() -> None:
    network = filled(abstract(ResNet, (1, 1, 1, 1), num_classes=7, in_channels=1))
    network.eval()
    assert jax.eval_shape(network, jnp.zeros((2, 32, 32, 1))).shape == (2, 7)


def test_heads_that_are_asked_for() -> None:
    model = small_model()
    model.eval()
    images = jnp.zeros((2, 32, 32, 3))
    assert {task: value.shape for task, value in jax.eval_shape(model, images).items()} == {
        "gender": (2, 1),
        "glasses": (2, 1),
        "shirt": (2, 8),
    }
    assert list(jax.eval_shape(partial(model, tasks=("shirt",)), images)) == ["shirt"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 64, 48), np.float32), r"\[batch, height, width, 3\], got \(2, 3, 64, 48\).*NCHW: transpose"),
        (np.zeros((64, 48, 3), np.float32), r"\[batch, height, width, 3\], got \(64, 48, 3\)"),
        (np.zeros((2, 64, 48, 4), np.float32), r"\[batch, height, width, 3\], got \(2, 64, 48, 4\)"),
        (np.zeros((2, 64, 48, 3), np.uint8), r"floating-point images, got uint8.*normalize"),
        (np.zeros((2, 64, 48, 3), np.int32), r"floating-point images, got int32.*normalize"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_images_are_refused(trunk: ResNet, images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trunk(jnp.asarray(images))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(trunk.stages, jnp.asarray(images))


@pytest.mark.usefixtures("unchecked")
def test_normalize_refuses_what_is_scaled() -> None:
    with pytest.raises(ValueError, match="uint8 pictures, got float32"):
        normalize(jnp.zeros((1, 8, 8, 3), jnp.float32))


def test_normalize_is_the_notebooks() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalize(jnp.asarray(pixels)), expected, rtol=1e-5, atol=1e-6)
    assert normalize(jnp.asarray(pixels), dtype=jnp.bfloat16).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        wide = normalize(jnp.asarray(pixels), dtype=jnp.float64)
        assert wide.dtype == jnp.float64
        np.testing.assert_allclose(wide, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_one_dtype_down_to_the_last_layer(dtype: str) -> None:
    """Computation, parameters, statistics and moments: after a training step nothing has another floating type."""
    with jax.enable_x64(dtype == "float64"):
        model = small_model(dtype, dtype)
        modules = groups.trained_modules(ResNet.STAGES, ("all",))
        graph, _ = steps.graphdefs(model, modules, freeze_batch_norm=False)
        step = steps.make_train_step(
            graph, _spec(), steps.StepOptions(modules, lambda step: jnp.asarray(1e-3, jnp.float32), dtype)
        )
        seen = {}

        def run(state):
            state, metrics = step(state, *_batch(), tasks=("shirt",))
            seen.update(metrics)
            return state

        state = jax.eval_shape(run, steps.create_state(model, modules))
        floating = {str(leaf.dtype) for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floating == {dtype}
        model.train()
        images = jnp.zeros((4, 32, 32, 3), dtype)
        maps = jax.eval_shape(lambda: nnx.clone(model).trunk.stages(images))
        logits = jax.eval_shape(lambda: nnx.clone(model)(images))
        assert {str(value.dtype) for value in (*maps.values(), *logits.values())} == {dtype}


def test_narrow_computation_over_wide_parameters() -> None:
    model = small_model(jnp.bfloat16)
    images = jnp.zeros((4, 32, 32, 3), jnp.bfloat16)
    logits = jax.eval_shape(lambda: nnx.clone(model)(images))
    assert {value.dtype for value in logits.values()} == {jnp.dtype(jnp.bfloat16)}
    leaves = jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    assert {str(leaf.dtype) for leaf in leaves} == {"float32", "int32"}


def test_runs_without_a_shared_graph() -> None:
    """Flax is moving to plain trees; a model made and trained under `set_graph_mode(False)` gives the same numbers."""

    def losses() -> list[float]:
        model = small_model()
        modules = groups.trained_modules(ResNet.STAGES, ("layer4",))
        graph, eval_graph = steps.graphdefs(model, modules, freeze_batch_norm=True)
        step = steps.make_train_step(
            graph, _spec(), steps.StepOptions(modules, lambda step: jnp.asarray(1e-3), jnp.float32)
        )
        state, result = steps.create_state(model, modules), []
        for _ in range(2):
            state, metrics = step(state, *_batch(), tasks=("shirt",))
            result.append(float(metrics["shirt"]["loss"]))
        jax.eval_shape(steps.model_of(eval_graph, state), jnp.zeros((1, 32, 32, 3)))
        return result

    usual = losses()
    with nnx.set_graph_mode(False):
        assert losses() == pytest.approx(usual, rel=1e-6)
    assert usual[0] != usual[1]


def test_create_model_by_name() -> None:
    assert list_models() == facefeat_jax.list_models()
    assert "resnet18" in list_models()
    with pytest.raises(facefeat_jax.UserError, match=r"unknown model 'resnet81'.*Did you mean 'resnet18'"):
        facefeat_jax.create_model("resnet81")
    with pytest.raises(facefeat_jax.UserError, match=r"unknown task 'glases'.*Did you mean 'glasses'"):
        facefeat_jax.create_model(tasks=("glases",))


def _spec() -> ModelSpec:
    return ModelSpec("resnet18", {n: t.classes for n, t in TASKS.items()}, 32, "as_notebook", "random")


def _batch() -> tuple:
    stream = np.random.RandomState(3)
    images = stream.randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    labels = {"shirt": stream.randint(0, 8, 4).astype(np.int32)}
    return images, labels, np.ones(4, bool)
