"""What researchers change in a trunk: its classifier, its shapes, its normalisation; and how it answers mistakes."""

from __future__ import annotations

import inspect
from functools import partial
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.errors import TraceContextError

from facefeat_jax import UserError, create_classifier, list_models
from facefeat_jax.models import (
    Bottleneck,
    ConvNeXt,
    GroupNorm,
    Head,
    ResNet,
    StageInfo,
    Trunk,
    VisionTransformer,
    WrongCallError,
    abstract,
    efficientnet_b0,
    get_architecture,
    resnet18,
    resnet18d,
    resnet50,
    vit_b_16,
)
from facefeat_jax.models._convolution import _SIZES, _he_normal, he_normal
from facefeat_jax.models._levels import feature_info
from facefeat_jax.models.efficientnet import EfficientNetV2Small, Scale, Stage
from weights_conversion import WeightsMismatchError, to_flax, to_torch, write
from weights_conversion._names import UnknownLayerError

from ..made import filled
from .test_families import FAMILIES, SIZE, every_family, made, pictures

OWN_NAMES = {"resnet": "fc", "efficientnet": "classifier.1", "vit": "heads.head"}
GROUPS = partial(GroupNorm, num_groups=4)


def shapes(trunk: Trunk, method: str = "__call__", side: int = SIZE, **options):
    """What a method gives for pictures of zeros: shapes, computed without computing."""
    graphdef, state = nnx.split(trunk)

    def run(state):
        streams = {"rngs": nnx.Rngs(dropout=0)} if options.pop("drop", False) else {}
        return getattr(nnx.merge(graphdef, state), method)(jnp.zeros((2, side, side, 3)), **options, **streams)

    return jax.eval_shape(run, state)


# --- The classifier


@every_family
@pytest.mark.parametrize("start", [None, 3])
def test_any_classifier_at_any_time(family: str, start: int | None) -> None:
    """Also on a trunk that was made without; to_torch keeps the family's name, and the tensors fit such a trunk."""
    trunk = made(family, num_classes=start)
    trunk.eval()
    width = trunk.num_features
    for number in range(2):
        trunk.fc = nnx.Linear(width, 10, rngs=nnx.Rngs(0))
        assert shapes(trunk).shape == (2, 10)
        trunk.fc = None
        assert shapes(trunk).shape == (2, width), number
    trunk.reset_classifier(7, rngs=nnx.Rngs(0))
    tensors = to_torch(trunk)
    assert tensors[f"{OWN_NAMES[family]}.weight"].shape == (7, width)
    again = to_flax(tensors, abstract(FAMILIES[family], num_classes=7))
    np.testing.assert_array_equal(again.fc.kernel[...], trunk.fc.kernel[...])
    trunk.reset_classifier(None)
    assert shapes(trunk).shape == (2, width)
    without = to_torch(trunk)
    assert set(tensors) - set(without) == {f"{OWN_NAMES[family]}.{part}" for part in ("weight", "bias")}


@every_family
@pytest.mark.usefixtures("unchecked")
def test_a_new_classifier_starts_as_the_familys_own(family: str) -> None:
    trunk = made(family, dtype=jnp.bfloat16)
    trunk.reset_classifier(4, rngs=nnx.Rngs(0))
    kernel = np.asarray(trunk.fc.kernel[...])
    bound = {"resnet": trunk.num_features**-0.5, "efficientnet": 0.5, "vit": 0.0}[family]
    assert abs(kernel).max() <= bound and (family == "vit" or abs(kernel).max() > 0.8 * bound)
    assert kernel.dtype == np.float32 and trunk.fc.dtype == jnp.bfloat16
    for wrong in (0, True, 2.5, "5"):
        with pytest.raises(ValueError, match="num_classes must be a whole number from 1 up"):
            getattr(trunk, "reset_classifier")(wrong)  # noqa: B009
    with pytest.raises(ValueError, match=r"rngs must be flax\.nnx\.Rngs"):
        trunk.reset_classifier(3, rngs=0)


@every_family
def test_heads_of_several_layers_have_the_names_of_torchs_sequential(family: str) -> None:
    rngs = nnx.Rngs(0)
    trunk = made(family)
    trunk.fc = nnx.Sequential(nnx.Linear(trunk.num_features, 6, rngs=rngs), nnx.relu, nnx.Linear(6, 2, rngs=rngs))
    tensors = to_torch(trunk)
    named = {name for name in tensors if name.startswith(OWN_NAMES[family])}
    assert named == {f"{OWN_NAMES[family]}.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    other = nnx.clone(trunk)
    for layer in (0, 2):
        other.fc.layers[layer].kernel[...] *= 0
    to_flax(tensors, other)
    for one, same in zip(*(jax.tree.leaves(nnx.state(t, nnx.Param)) for t in (trunk, other)), strict=True):
        np.testing.assert_array_equal(one, same)
    trunk.fc = Head(trunk.num_features, 3, hidden_features=4, rngs=rngs)
    assert to_torch(trunk)[f"{OWN_NAMES[family]}.hidden.weight"].shape == (4, trunk.num_features)


class Squeezed(ResNet):
    """A subclass with a layer of its own."""

    def __init__(self, *arguments, rngs: nnx.Rngs, **options):
        super().__init__(*arguments, rngs=rngs, **options)
        self.gate = nnx.Linear(4, 4, rngs=rngs)


class Scaled(ResNet):
    """A subclass with a tensor that is no layer's."""

    def __init__(self, *arguments, rngs: nnx.Rngs, **options):
        super().__init__(*arguments, rngs=rngs, **options)
        self.factor = nnx.Param(jnp.ones(()))


def test_subclasses_go_to_torch_and_back_or_say_what_to_do() -> None:
    build = partial(Squeezed, (1, 1, 1, 1), width=4)
    trunk = filled(abstract(build))
    tensors = to_torch(trunk)
    assert tensors["gate.weight"].shape == (4, 4) and "layer2.0.downsample.0.weight" in tensors
    np.testing.assert_array_equal(to_flax(tensors, abstract(build)).gate.kernel[...], trunk.gate.kernel[...])
    with pytest.raises(UnknownLayerError, match=r"of its own is a Scaled.*add a table") as caught:
        to_torch(abstract(Scaled, (1, 1, 1, 1), width=4))
    assert "\n" not in str(caught.value)
    vit = made("vit")
    vit.block0.attention.qkv = nnx.LoRA(24, 2, 72, base_module=vit.block0.attention.qkv, rngs=nnx.Rngs(0))
    with pytest.raises(UnknownLayerError, match=r"block0\.attention\.qkv is a LoRA.*merged"):
        to_torch(vit)


def test_a_classifier_by_name_and_weights(tiny_trunks, tmp_path, capsys) -> None:
    """The trunk's weights are the file's; a classifier of another width is new, and a line says so."""
    for name in tiny_trunks.values():
        build = get_architecture(name).build
        source = filled(abstract(build, num_classes=6))
        write(tmp_path / "w.safetensors", to_torch(source))
        write(tmp_path / "bare.safetensors", to_torch(filled(abstract(build))))
        make = partial(create_classifier, name, weights=tmp_path / "w.safetensors")
        kept, same, new = make(), make(num_classes=6), make(num_classes=4, rngs=nnx.Rngs(1))
        said = " ".join(capsys.readouterr().err.split())
        assert said.count("a new classifier of 4 classes") == 1 and "of 6 classes" in said
        for trunk in (kept, same):
            np.testing.assert_array_equal(trunk.fc.kernel[...], source.fc.kernel[...])
        assert new.fc.kernel.shape == (new.num_features, 4)
        trunks = [
            {n: t for n, t in to_torch(one).items() if not n.startswith(tuple(OWN_NAMES.values()))}
            for one in (source, new)
        ]
        assert trunks[0].keys() == trunks[1].keys()
        assert all(np.array_equal(trunks[0][n], trunks[1][n]) for n in trunks[0])
        with pytest.raises(UserError, match="has no classifier: say how many"):
            create_classifier(name, weights=tmp_path / "bare.safetensors")
        assert create_classifier(name, weights=tmp_path / "bare.safetensors", num_classes=2).fc.out_features == 2
        with pytest.raises(WeightsMismatchError, match=r"but for its classifier .*create_classifier"):
            to_flax(to_torch(source), abstract(build, num_classes=5))
    assert create_classifier("small", num_classes=3).fc.out_features == 3
    with pytest.raises(UserError, match="num_classes=10"):
        create_classifier("small")


# --- Levels


@every_family
def test_levels_are_the_last_map_of_each_stride(family: str) -> None:
    trunk = made(family)
    trunk.eval()
    graphdef, state = nnx.split(trunk)
    run = jax.jit(lambda s, x: (nnx.merge(graphdef, s).features(x), nnx.merge(graphdef, s).stages(x)))
    levels, maps = run(state, pictures(32))
    assert {row.name: row.stride for row in trunk.feature_info()} == trunk.strides
    assert {row.stride: row.channels for row in trunk.feature_info() if row.name not in trunk.NECK} == {
        stride: level.shape[-1] for stride, level in levels.items()
    }
    for stride, level in levels.items():
        assert level.shape[1:3] == (32 // stride, 32 // stride)
        name = [name for name, one in trunk.strides.items() if one == stride and name not in trunk.NECK][-1]
        inner = maps[name] if maps[name].ndim == 4 else maps[name][:, 1:].reshape(level.shape)
        np.testing.assert_array_equal(level, inner)
    some = max(levels)
    assert set(shapes(trunk, "features", levels=some)) == set(shapes(trunk, "features", levels=[some])) == {some}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stem": "cifar"},
        {"replace_stride_with_dilation": (False, True, True)},
        {"replace_stride_with_dilation": (True,) * 3},
        {"stem": "deep_tiered", "avg_down": True, "replace_stride_with_dilation": (False, True, True)},
    ],
)
def test_strides_are_those_of_the_maps(options) -> None:
    """As the base class finds them, by running on shapes."""
    trunk = abstract(FAMILIES["resnet"], **options)
    assert {row.name: row.stride for row in feature_info(trunk)} == trunk.strides
    own = {row.name: row.stride for row in feature_info(abstract(FAMILIES["efficientnet"]))}
    assert own == abstract(FAMILIES["efficientnet"]).strides == Trunk.strides.fget(abstract(FAMILIES["efficientnet"]))


@pytest.mark.usefixtures("unchecked")
def test_a_level_that_the_trunk_has_not() -> None:
    trunk = made("resnet")
    for levels in (64, [4, 64], "layer1", 4.5):
        with pytest.raises(
            ValueError, match=r"ResNet has no level .*its levels are strides: 4 \(layer1\), 8 \(layer2\)"
        ):
            trunk.features(pictures(), levels=levels)
    assert abstract(resnet50).feature_info()[-1] == StageInfo("layer4", 2048, 32)


def test_tokens_and_attention() -> None:
    trunk = made("vit")
    trunk.eval()
    graphdef, state = nnx.split(trunk)

    @jax.jit
    def run(state, images):
        trunk = nnx.merge(graphdef, state)
        return trunk.tokens(images), trunk.attention(images), trunk(images), trunk(images, until="norm")

    tokens, attention, pooled, normed = run(state, pictures())
    np.testing.assert_array_equal(tokens, normed)
    np.testing.assert_array_equal(tokens[:, 0], pooled)
    assert list(attention) == ["block0", "block1"]
    for weights in attention.values():
        assert weights.shape == (4, 3, 5, 5) and weights.min() > 0 and np.std(weights) > 1e-3
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


# --- Newer families


def small_v2(**options) -> EfficientNetV2Small:
    table = (Stage(1, 3, 1, 16, 2, fused=True), Stage(4, 3, 2, 16, 1, fused=True), *(Stage(2, 1, 2, 16, 1),) * 4)
    return EfficientNetV2Small(Scale(1.0, 1.0, dropout=0.2, epsilon=1e-3), table=table, stem=16, head=24, **options)


def small_convnext(**options) -> ConvNeXt:
    return ConvNeXt((1, 2, 1, 1), (4, 8, 8, 12), **options)


@pytest.mark.parametrize(
    ("build", "classifier", "last"),
    [(small_v2, "classifier.1", "features.7.0.weight"), (small_convnext, "classifier.2", "classifier.0.weight")],
)
def test_newer_families_have_all_that_the_others_have(build, classifier: str, last: str) -> None:
    trunk = filled(abstract(build, num_classes=3))
    tensors = to_torch(trunk)
    assert {f"{classifier}.weight", last} <= set(tensors)
    again = to_flax(tensors, abstract(build, num_classes=3))
    for one, same in zip(*(jax.tree.leaves(nnx.state(t, nnx.Param)) for t in (trunk, again)), strict=True):
        np.testing.assert_array_equal(one, same)
    trunk.reset_classifier(5)
    assert shapes(trunk, side=64, drop=True).shape == (2, 5)
    assert {row.name: row.stride for row in feature_info(trunk)} == trunk.strides
    with pytest.raises(ValueError, match=r"StochasticDepth .*needs rngs"):
        shapes(trunk, side=64)
    bare = abstract(build, remat=True)
    assert shapes(bare, side=64, drop=True).shape == (2, bare.num_features)
    assert shapes(bare, "features", side=64, levels=8, drop=True)[8].shape[1:3] == (8, 8)
    modules = [name for stage in bare.STAGES.values() for name in stage]
    assert set(nnx.to_pure_dict(nnx.state(bare, nnx.Param))) - {"fc"} == set(modules)


def test_a_convnext_of_too_small_pictures() -> None:
    with pytest.raises(ValueError, match=r"images of 32 pixels or more, got \(1, 16, 64, 3\); resize"):
        abstract(small_convnext)(jnp.zeros((1, 16, 64, 3)))


# --- Shapes of their own


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("resnet", {"stem": "cifar", "norm_layer": GROUPS, "drop_path": 0.3}),
        ("resnet", {"replace_stride_with_dilation": (False, True, True)}),
        ("resnet", {"stem": "deep", "stem_width": 8, "avg_down": True, "norm_layer": GROUPS}),
        ("efficientnet", {"norm_layer": GROUPS, "drop_path": 0.0}),
        ("vit", {"pad": True, "drop_path": 0.3}),
    ],
)
def test_options_survive_torch_and_back(family: str, options) -> None:
    trunk = filled(abstract(FAMILIES[family], num_classes=2, **options))
    again = to_flax(to_torch(trunk), abstract(FAMILIES[family], num_classes=2, **options))
    for one, same in zip(*(jax.tree.leaves(nnx.state(t)) for t in (trunk, again)), strict=True):
        np.testing.assert_array_equal(one, same)
    side = 20 if family == "vit" else 32
    assert shapes(trunk, side=side, drop=True).shape == (2, 2)
    if options.get("drop_path"):
        with pytest.raises(ValueError, match=r"StochasticDepth with rate 0.*needs rngs"):
            shapes(trunk, side=side)
    if "norm_layer" in options:
        assert not jax.tree.leaves(nnx.state(trunk, nnx.BatchStat))
        assert shapes(trunk, side=side, mask=jnp.array([True, False]), drop=True).shape == (2, 2)


def test_padded_pictures_are_those_with_zeros_at_the_right_and_the_bottom() -> None:
    trunk = made("vit", pad=True)
    trunk.eval()
    images = pictures()[:, :10, :]
    graphdef, state = nnx.split(trunk)
    run = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images))
    np.testing.assert_allclose(
        run(state, images), run(state, jnp.pad(images, ((0, 0), (0, 6), (0, 0), (0, 0)))), rtol=1e-6
    )
    assert shapes(trunk, "features", side=20)[8].shape == (2, 3, 3, 24)


def test_stochastic_depth_leaves_out_blocks_of_some_pictures_in_training_only() -> None:
    trunk = filled(abstract(ResNet, (1, 1, 1, 1), width=4, norm_layer=partial(GroupNorm, num_groups=2), drop_path=0.9))
    graphdef, state = nnx.split(trunk)

    @jax.jit
    def run(state, key):
        one = nnx.merge(graphdef, state)
        trained = one(pictures(32), rngs=nnx.Rngs(dropout=key))
        one.eval()
        return trained, one(pictures(32))

    (first, usual), (second, same) = (run(state, jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(usual, same)
    assert not np.allclose(first, usual) and not np.allclose(first, second)
    rates = [
        block[0].drop_path.rate if block[0].drop_path else 0 for block in (trunk.layer1, trunk.layer2, trunk.layer4)
    ]
    np.testing.assert_allclose(rates, [0, 0.3, 0.9])


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"for trunks of bottlenecks \(resnet50"):
        abstract(resnet18, replace_stride_with_dilation=(False, False, True))
    with pytest.raises(ValueError, match="groups and width_per_group are for trunks of bottlenecks"):
        abstract(ResNet, (1, 1, 1, 1), groups=32, width_per_group=4)
    with pytest.raises(ValueError, match="takes three values"):
        abstract(resnet50, replace_stride_with_dilation=(True,))
    with pytest.raises(ValueError, match="'imagenet' or 'cifar' or 'deep' or 'deep_tiered', got 'tiered'"):
        abstract(resnet18, stem="tiered")
    with pytest.raises(ValueError, match=r"stem_width is for deep stems; with stem='imagenet'"):
        abstract(resnet18, stem_width=32)
    with pytest.raises(ValueError, match="avg_down must be True or False, got 'yes'"):
        abstract(resnet18, stem="deep", avg_down="yes")
    with pytest.raises(ValueError, match="resnet18d has no option 'stem'"):
        abstract(resnet18d, stem="cifar")
    with pytest.raises(UserError, match="hf-hub:timm/NAME"):
        create_classifier("resnet18d", weights="timm/resnet18d.ra2_in1k")
    with pytest.raises(ValueError, match=r"num_groups=32 does not divide 16 channels.*partial"):
        abstract(ResNet, (1, 1, 1, 1), width=16, norm_layer=GroupNorm)


# --- Options, and the messages of mistakes


@pytest.mark.parametrize("build", [resnet18, efficientnet_b0, vit_b_16])
def test_help_lists_the_options_by_name(build) -> None:
    names = list(inspect.signature(build).parameters)
    assert {"num_classes", "in_channels", "dtype", "param_dtype", "remat", "rngs", "drop_path"} <= set(names)
    assert all(f"\n  {name}: " in build.__doc__ for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_chans": 1}, r"resnet18 has no option 'in_chans'\. Did you mean 'in_channels'\? Options: .*num_classes"),
        ({"weights": "imagenet"}, r"create_classifier\('resnet18', weights='imagenet'\)"),
        ({"pretrained": True}, r"create_classifier\('resnet18', weights='imagenet'\)"),
        ({"rngs": 0}, r"rngs must be flax\.nnx\.Rngs\(seed\), got 0"),
        ({"rngs": jax.random.key(0)}, r"rngs must be flax\.nnx\.Rngs"),
        ({"dtype": "bf16"}, "dtype must be a floating-point dtype, such as jnp.bfloat16, got 'bf16'"),
        ({"dtype": jnp.int32}, "dtype must be a floating-point dtype"),
        ({"param_dtype": None}, "param_dtype must be a floating-point dtype"),
        ({"image_size": 64}, "resnet18 has no option 'image_size'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_options_are_answered(options, message: str) -> None:
    for kind in (UserError, TypeError, ValueError):
        with pytest.raises(kind, match=message) as caught:
            resnet18(**{"rngs": nnx.Rngs(0), **options})
        assert "\n" not in str(caught.value)
    if "weights" not in options and "rngs" not in options:
        with pytest.raises(UserError, match=message):
            create_classifier("resnet18", num_classes=2, **options)


@pytest.mark.usefixtures("unchecked")
def test_calls_without_options_are_answered() -> None:
    with pytest.raises(TypeError, match=r"by name only, such as num_classes=10"):
        resnet18(10, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"resnet18 needs rngs.*rngs=flax\.nnx\.Rngs\(0\)"):
        resnet18()
    trunk = abstract(resnet18)
    with pytest.raises(AttributeError, match=r"'forward': here it is trunk\(images\)"):
        trunk.forward  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        trunk.nothing  # noqa: B018
    assert not hasattr(trunk, "state_dict")


@every_family
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 3, 3), np.float32), r"\(2, 3, 3, 3\) are NCHW, or 3 pixels high: transpose"),
        (
            np.full((2, 16, 16, 3), 200, np.float32),
            r"expected normalised images, got values from 200 to 200 in .*normalize",
        ),
        (jnp.full((2, 16, 16, 3), 200, jnp.bfloat16), "expected normalised images, got values from 200 to 200"),
        (np.zeros((16, 16, 3), np.float32), r"one picture: give images\[None\]"),
        ([[[[0.0, 0, 0]]]], r"expected an array of images \[batch, height, width, 3\], got <class 'list'>"),
        (
            np.zeros((2, 16, 16, 3), np.float32),
            "is abstract, its weights are shapes only: fill it with weights_conversion.to_flax",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_calls_are_answered(family: str, images, message: str) -> None:
    trunk = abstract(FAMILIES[family])
    for call in (trunk, trunk.stages, trunk.features):
        with pytest.raises(ValueError, match=message) as caught:
            call(images)
        assert "\n" not in str(caught.value)


@every_family
def test_a_dtype_that_the_layers_know_nothing_of(family: str) -> None:
    trunk = made(family)
    trunk.dtype = jnp.bfloat16
    with pytest.raises(
        WrongCallError, match=r"was set to bfloat16 after it was made.*float32: make it with dtype=jnp.bf"
    ):
        trunk(pictures())
    trunk.set_attributes(dtype=jnp.bfloat16)
    assert shapes(trunk, drop=True).dtype == jnp.bfloat16


def test_training_in_a_closure_is_answered() -> None:
    trunk = made("resnet")
    with pytest.raises(TraceContextError, match=r"flax\.nnx\.jit.*model\.eval\(\)"):
        jax.jit(lambda images: trunk(images))(pictures(32))


@pytest.mark.usefixtures("unchecked")
def test_models_by_pattern_and_with_weights(small_trunk: str) -> None:
    resnets = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    assert len(list_models("resnext*")) == 3 and len(list_models("wide_*", pretrained=True)) == 2
    assert list_models("resnet*", pretrained=True) == resnets
    deep = ["resnet18d", "resnet34d", "resnet50d", "resnet101d", "resnet152d", "resnet50s", "resnet101s", "resnet152s"]
    assert list_models("ResNet*") == [*resnets, *deep, "resnet50t"]
    assert small_trunk in list_models() and small_trunk not in list_models(pretrained=True)
    assert list_models("nothing*") == []
    with pytest.raises(UserError, match="takes a pattern"):
        list_models(3)


def test_types_are_those_of_the_arguments() -> None:
    """mypy checks these lines."""
    if inspect.isfunction(None):
        assert_type(abstract(resnet18), ResNet)
        assert_type(to_flax({}, abstract(resnet18)), ResNet)
        assert_type(to_flax({}, abstract(vit_b_16)), VisionTransformer)
        assert_type(create_classifier(), Trunk)
    assert Bottleneck.EXPANSION == 4


# --- The start


@pytest.mark.parametrize("shape", [(3, 3, 3, 32), (1, 1, 96, 4), (5, 5, 1, 240), (1, 1, 112, 672)])
def test_kernels_start_as_they_did_with_few_programs(shape, monkeypatch) -> None:
    """To the bit: a longer vector's first numbers are those of any shape."""
    expected = np.asarray(_he_normal(jax.random.key(3), shape, jnp.float32))
    drawn, normal = [], jax.random.normal
    monkeypatch.setattr(
        jax.random, "normal", lambda key, shape, dtype: drawn.append(shape) or normal(key, shape, dtype)
    )
    np.testing.assert_array_equal(he_normal(jax.random.key(3), shape, jnp.float32), expected)
    assert drawn in [[(size,)] for size in _SIZES]
    traced = jax.jit(lambda key: he_normal(key, shape, jnp.float32))(jax.random.key(3))
    np.testing.assert_allclose(traced, expected, rtol=1e-5, atol=1e-7)
