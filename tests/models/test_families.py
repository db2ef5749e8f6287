"""Every family of trunks under everything that researchers do to a module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from facefeat_jax.models import (
    BatchNorm,
    Bottleneck,
    EfficientNet,
    MultiTaskModel,
    ResNet,
    VisionTransformer,
    abstract,
    trained_parameters,
)
from facefeat_jax.models.efficientnet import Scale, Stage
from facefeat_jax.models.registry import ARCHITECTURES
from facefeat_jax.models.sharding import NAMES, axis_rules
from facefeat_jax.models.trunk import Trunk
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups

from ..made import filled, values_for

pytestmark = pytest.mark.long

SIZE, BATCH = 16, 4
_TABLE = (Stage(1, 1, 1, 16, 1), Stage(2, 3, 2, 32, 1), *(Stage(1, 1, 1, 32, 1),) * 5)  # 1x1: compiles fast


def tiny_resnet(**options: Any) -> ResNet:
    return ResNet((1, 1, 1, 1), block=Bottleneck, width=8, **options)


def tiny_efficientnet(**options: Any) -> EfficientNet:
    return EfficientNet(Scale(0.25, 1.0, dropout=0.2), table=_TABLE, **options)


def tiny_vit(**options: Any) -> VisionTransformer:
    return VisionTransformer(8, 2, 24, 3, 48, **{"image_size": SIZE, **options})


FAMILIES: dict[str, Callable[..., Trunk]] = {
    "resnet": tiny_resnet,
    "efficientnet": tiny_efficientnet,
    "vit": tiny_vit,
}
TORCHS_BICUBIC = {
    1: [0.0],
    3: [0.0, 4.0, -3.0],
    4: [0.0, 2.166666666666667, 3.351851851851853, -3.0],
    8: [
        *(0.0, 0.26530612244898, 1.46793002915452, 3.470845481049562),
        *(4.018950437317782, 2.674927113702628, -0.309037900874631, -3.0),
    ],
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def quick(*families: str) -> pytest.MarkDecorator:
    """Has a test run with these families, and with the others among the slow tests."""
    marks = {name: () if name in families else pytest.mark.slow for name in FAMILIES}
    return pytest.mark.parametrize("family", [pytest.param(name, marks=marks[name]) for name in FAMILIES])


def made(family: str, **options: Any) -> Trunk:
    return filled(abstract(FAMILIES[family], **options))


def pictures(size: int = SIZE, channels: int = 3, seed: int = 0) -> jax.Array:
    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    return jnp.asarray(np.random.RandomState(seed).standard_normal((BATCH, size, size, channels)), dtype)


def training_step(trunk: Trunk, key: jax.Array) -> tuple[jax.Array, Any, Any]:
    """Returns loss, gradients and statistics of one step in training mode, as nested dicts."""
    trunk.train()
    graphdef, *states = nnx.split(trunk, nnx.Param, ...)
    params, rest = map(nnx.to_pure_dict, states)

    @jax.jit
    def step(params, rest, images, key):
        def loss_of(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            outputs = model(images, rngs=nnx.Rngs(dropout=key))
            return jnp.mean(jnp.square(outputs - 1)), nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

        (loss, rest_after), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return loss, gradients, rest_after

    return step(params, rest, pictures(), key)


def close(ours: Any, theirs: Any) -> None:
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * scale), ours, theirs)


# --- Transformations


@every_family
def test_any_stage_on_jit_and_vmap(family: str) -> None:
    """One program: the whole trunk, each stage after the one before, and vmap over pictures, all the same."""
    trunk = made(family, num_classes=5)
    trunk.eval()
    graphdef, state = nnx.split(trunk)

    @jax.jit
    def run(state, images):
        model = nnx.merge(graphdef, state)
        in_parts = {name: model(model(images, until=name), after=name) for name in model.STAGES}
        one_by_one = jax.vmap(lambda image: model(image[None])[0])(images)
        return model(images), in_parts, one_by_one, model.stages(images)

    whole, in_parts, one_by_one, maps = run(state, pictures())
    assert whole.shape == (BATCH, 5) and np.isfinite(whole).all() and np.std(whole) > 1e-3
    for name, outputs in in_parts.items():
        np.testing.assert_allclose(outputs, whole, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-4, atol=1e-5)
    assert set(maps) == set(trunk.STAGES) and set(trunk.LAST) <= set(maps)


@quick("vit")
def test_training_steps_whatever_the_graph_mode_and_with_remat(family: str) -> None:
    """In float64: with maps of one pixel, batch normalisation makes much of the rounding of narrower types."""

    def outcome(seed: int = 1, **options: Any) -> Any:
        return training_step(made(family, num_classes=5, param_dtype=jnp.float64, **options), jax.random.key(seed))

    with jax.enable_x64(True):
        usual = outcome()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(usual))
        with nnx.set_graph_mode(False):
            close(outcome(), usual)  # the same program: not compiled again
            close(outcome(remat=True), usual)
        if family == "efficientnet":
            assert outcome(seed=2)[0] != usual[0]


def test_remat_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backward pass is given: without remat the inside of every block, with it the blocks' inputs."""

    def kept(remat: bool) -> int:
        trunk = made("vit", remat=remat)
        graphdef, state = nnx.split(trunk)
        _, backward = jax.eval_shape(lambda s: jax.vjp(lambda s: nnx.merge(graphdef, s)(pictures()), s), state)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept(True) < 0.6 * kept(False)


@quick("resnet", "vit")
def test_linen_training_step_through_the_bridge(family: str) -> None:
    """Init (its shapes), apply with mutable statistics and random streams, gradients, an optimizer: the loss falls."""

    class Classifier(linen.Module):
        @linen.compact
        def __call__(self, images: jax.Array, *, training: bool) -> jax.Array:
            trunk = nnx.bridge.ToLinen(FAMILIES[family], kwargs={"num_classes": 5}, name="trunk")
            if training:
                return trunk(images, rngs=nnx.Rngs(dropout=self.make_rng("dropout")))
            return trunk(images, nnx_method=in_evaluation)

    def in_evaluation(trunk: Trunk, images: jax.Array) -> jax.Array:
        trunk.eval()
        return trunk(images)

    module, labels = Classifier(), jnp.arange(BATCH)
    keys, stream = {"params": jax.random.key(0), "dropout": jax.random.key(1)}, np.random.RandomState(0)
    shapes = jax.eval_shape(partial(module.init, training=True), keys, pictures())
    variables = jax.tree.map(lambda like: jnp.asarray(values_for(like.shape, stream), like.dtype), shapes)
    params, stats = variables["params"], {name: value for name, value in variables.items() if name != "params"}
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, stats, opt_state, key):
        def loss_of(params):
            logits, moved = module.apply(
                {"params": params, **stats}, pictures(), training=True, mutable=list(stats), rngs={"dropout": key}
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

        (loss, moved), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state)
        return optax.apply_updates(params, updates), moved, opt_state, loss

    opt_state, losses = optimizer.init(params), []
    for number in range(4):
        params, stats, opt_state, loss = step(params, stats, opt_state, jax.random.key(number))
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    logits = jax.eval_shape(partial(module.apply, training=False), {"params": params, **stats}, pictures())
    assert logits.shape == (BATCH, 5)


# --- What is random


def test_stochastic_layers_want_rngs_in_training_only() -> None:
    trunk = made("efficientnet", num_classes=5)
    trunk.train()
    with pytest.raises(ValueError, match=r"StochasticDepth .*needs rngs: .*rngs=nnx\.Rngs.*model\.eval"):
        jax.eval_shape(lambda: nnx.clone(trunk)(pictures()))
    trunk.set_attributes(rate=0.0, raise_if_not_found=False)
    assert jax.eval_shape(lambda: nnx.clone(trunk)(pictures())).shape == (BATCH, 5)
    for family in ("resnet", "vit"):
        assert jax.eval_shape(lambda f=family: made(f)(pictures())).shape[0] == BATCH
    model = MultiTaskModel(made("efficientnet"), [TASKS["glasses"]], rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="needs rngs"):
        jax.eval_shape(lambda: nnx.clone(model)(pictures()))
    assert jax.eval_shape(lambda: nnx.clone(model)(pictures(), rngs=nnx.Rngs(0)))["glasses"].shape == (BATCH, 1)


def test_stochastic_depth_drops_whole_pictures_as_often_as_told() -> None:
    from facefeat_jax.models._dropout import Dropout, StochasticDepth

    inputs = jnp.ones((4000, 2, 3, 4))
    outputs = np.asarray(StochasticDepth(0.3)(inputs, rngs=nnx.Rngs(0))).reshape(4000, -1)
    assert (outputs == outputs[:, :1]).all()
    np.testing.assert_allclose(np.unique(outputs), [0, 1 / 0.7], rtol=1e-6)
    assert abs((outputs[:, 0] == 0).mean() - 0.3) < 0.03
    dropped = np.asarray(Dropout(0.3)(inputs, rngs=nnx.Rngs(0)))
    assert abs((dropped == 0).mean() - 0.3) < 0.01 and len(np.unique(dropped[0])) == 2


# --- Frozen and trained


@every_family
@pytest.mark.parametrize("trainable", ["last", "none", "all"])
def test_the_filter_agrees_with_the_recipes_groups(family: str, trainable: str) -> None:
    model = MultiTaskModel(abstract(FAMILIES[family]), TASKS.values(), rngs=nnx.Rngs(0))
    trained = nnx.state(model, trained_parameters(model, trainable))
    modules = groups.trained_modules(model.trunk.STAGES, (trainable,), model.trunk.LAST)
    assert set(nnx.to_pure_dict(trained).get("trunk", {})) == set(modules)
    assert set(nnx.to_pure_dict(trained)["heads"]) == set(TASKS)
    assert all(isinstance(variable, nnx.Param) for _, variable in nnx.to_flat_state(trained))
    assert (trainable == "none") == (not modules)
    everything = len(jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert (len(jax.tree.leaves(trained)) == everything) == (trainable == "all")


@pytest.mark.parametrize(
    ("name", "modules"),
    [("resnet18", ("layer4",)), ("efficientnet_b3", ("stage7", "head")), ("vit_l_16", ("block23", "norm"))],
)
def test_what_the_last_block_is(name: str, modules: tuple[str, ...]) -> None:
    architecture = ARCHITECTURES[name]
    assert groups.trained_modules(architecture.stages, ("last",), architecture.last) == modules


def test_the_filter_in_an_optimizer() -> None:
    trunk = made("vit", num_classes=5)
    wanted = trained_parameters(trunk, ["block1"])
    before = nnx.to_pure_dict(nnx.clone(nnx.state(trunk, nnx.Param)))
    optimizer = nnx.Optimizer(trunk, optax.sgd(1.0), wrt=wanted)

    @nnx.jit
    def step(trunk, optimizer):
        gradients = nnx.grad(lambda model: jnp.sum(model(pictures()) ** 2), argnums=nnx.DiffState(0, wanted))(trunk)
        optimizer.update(trunk, gradients)

    step(trunk, optimizer)
    after = nnx.to_pure_dict(nnx.state(trunk, nnx.Param))
    moved = {name for name in before if not jax.tree.all(jax.tree.map(np.array_equal, before[name], after[name]))}
    assert moved == {"block1", "fc"}
    with pytest.raises(UserError, match=r"'blok1'.*Did you mean 'block1'"):
        trained_parameters(trunk, ["blok1"])


# --- Sizes, channels, dtypes, names of axes


@every_family
def test_any_channels_and_dtypes(family: str) -> None:
    trunk = abstract(FAMILIES[family], in_channels=5, dtype=jnp.bfloat16)
    trunk.eval()
    graphdef, state = nnx.split(trunk)
    run = jax.eval_shape(lambda s: nnx.merge(graphdef, s).stages(jnp.zeros((2, SIZE, SIZE, 5), jnp.bfloat16)), state)
    assert {value.dtype for value in run.values()} == {jnp.dtype(jnp.bfloat16)}
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        trunk = abstract(FAMILIES[family], num_classes=3, dtype=jnp.float64, param_dtype=jnp.float64)
        graphdef, state = nnx.split(trunk)
        outputs = jax.eval_shape(
            lambda s: nnx.merge(graphdef, s)(jnp.zeros((2, SIZE, SIZE, 3), jnp.float64), rngs=nnx.Rngs(0)), state
        )
        assert outputs.dtype == jnp.float64 and outputs.shape == (2, 3)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "vit_b_16"])
def test_kernels_have_names_for_their_axes(name: str) -> None:
    """And rules for the names lay them out; without rules and without a mesh they do nothing."""
    trunk = abstract(ARCHITECTURES[name].build, num_classes=10)
    for path, variable in nnx.iter_graph(trunk):
        if isinstance(variable, nnx.Param) and len(variable.shape) > 1:
            axes = variable.get_metadata()["out_sharding"]
            assert len(axes) == len(variable.shape) and set(axes) <= {None, *NAMES}, path
    with nnx.logical_axis_rules(axis_rules(conv_out="model", mlp="model", heads="model")):
        specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(trunk, nnx.Param)))
    named = [spec for spec in jax.tree.leaves(specs, is_leaf=lambda x: x is None or not isinstance(x, dict))]
    assert sum("model" in tuple(spec) for spec in named if spec) > 15


def test_positions_are_resized_by_torchs_bicubic_with_the_corners_in_place() -> None:
    """Against `torch.nn.functional.interpolate(..., mode="bicubic", align_corners=True)` of 0, 1, 4, 2, -3."""
    from facefeat_jax.models._positions import bicubic

    values = np.array([0.0, 1.0, 4.0, 2.0, -3.0])
    for wanted, expected in TORCHS_BICUBIC.items():
        np.testing.assert_allclose(bicubic(5, wanted) @ values, expected, rtol=0, atol=1e-12)


# --- Bad input


@every_family
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, SIZE, SIZE * 2), r"got \(2, 3, 16, 32\).*NCHW: transpose"),
        ((SIZE, SIZE, 3), r"\[batch, height, width, 3\], got \(16, 16, 3\)"),
        ((2, SIZE, SIZE, 4), r"\[batch, height, width, 3\], got \(2, 16, 16, 4\)"),
        ((2, 0, SIZE, 3), r"got \(2, 0, 16, 3\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_images_are_refused(family: str, shape: tuple[int, ...], message: str) -> None:
    trunk = abstract(FAMILIES[family])
    with pytest.raises(ValueError, match=message):
        trunk(jnp.zeros(shape))
    with pytest.raises(ValueError, match=message):
        trunk.stages(jnp.zeros(shape))


def test_pictures_that_are_no_whole_patches_are_refused() -> None:
    trunk = abstract(tiny_vit)
    for shape in ((2, 4, 16, 3), (2, 16, 20, 3)):
        with pytest.raises(ValueError, match=rf"multiples of that, got \(2, {shape[1]}, {shape[2]}, 3\)"):
            trunk(jnp.zeros(shape))
    with pytest.raises(ValueError, match="multiple of the patch, 8 pixels, got 20"):
        abstract(tiny_vit, image_size=20)


def test_stages_that_there_are_not() -> None:
    trunk = abstract(tiny_resnet)
    with pytest.raises(ValueError, match=r"'layer5'\. Did you mean 'layer\d'.*stem, layer1"):
        trunk(pictures(), until="layer5")
    with pytest.raises(ValueError, match="'layer1' does not come after 'layer2'"):
        trunk(pictures(), after="layer2", until="layer1")
    with pytest.raises(ValueError, match=r"no classifier: make it with num_classes"):
        trunk.classify(jnp.zeros((1, trunk.num_features)))


def test_eval_mode_reaches_every_layer() -> None:
    for family in FAMILIES:
        trunk = abstract(FAMILIES[family])
        for mode, wanted in (("eval", True), ("train", False)):
            getattr(trunk, mode)()
            for _, module in nnx.iter_modules(trunk):
                if isinstance(module, BatchNorm):
                    assert module.use_running_average is wanted
                if isinstance(module, nnx.Dropout):
                    assert module.deterministic is wanted
