"""Every trunk against torchvision's model of that name: facts, names, shapes, numbers."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from facefeat_jax.models import BatchNorm, abstract
from facefeat_jax.models._dropout import Dropout, StochasticDepth
from facefeat_jax.models.counting import count_multiply_adds, count_parameters
from facefeat_jax.models.registry import ARCHITECTURES
from parity.trunks import DROPPING, SMALL_TRUNKS
from weights_conversion import to_flax, to_torch
from weights_conversion._records import differences
from weights_conversion._with_torch import import_torchvision
from weights_conversion.convert import recognise, torch_shapes
from weights_conversion.verify import TOLERANCE, largest, table, verify

# Name, side of the pictures, whether gradients and steps are compared.
SAMPLE = [("resnet50", 64, True)]
WHOLE = [("efficientnet_b0", 64, True), ("convnext_tiny", 64, True), ("vit_b_32", 64, False)]
SLOW = [
    ("resnet18", 64, True),
    ("resnet34", 64, True),
    ("resnet101", 64, False),
    ("resnet152", 64, False),
    ("resnext50_32x4d", 64, True),
    ("resnext101_32x8d", 64, False),
    ("resnext101_64x4d", 64, False),
    ("wide_resnet50_2", 64, True),
    ("wide_resnet101_2", 64, False),
    *((f"efficientnet_b{number}", 64, False) for number in range(1, 8)),
    ("efficientnet_v2_s", 64, True),
    ("efficientnet_v2_m", 64, False),
    ("efficientnet_v2_l", 64, False),
    *((f"convnext_{size}", 64, False) for size in ("small", "base", "large")),
    ("vit_b_16", 224, False),
    ("vit_b_16", 64, True),
    ("vit_l_16", 32, False),
    ("vit_l_32", 64, False),
]
# A trunk of the project's own has no counterpart there.
TORCHVISIONS = [name for name, architecture in ARCHITECTURES.items() if architecture.published]
SMALLEST = {"resnet18", "resnet50", "efficientnet_b0", "vit_b_16"}
every_architecture = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SMALLEST else pytest.mark.whole) for n in TORCHVISIONS]
)


@pytest.fixture(scope="module")
def torchvision():
    return import_torchvision()


def _meta_model(torchvision, name: str):
    import torch

    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None)


def _check(name: str, image_size: int, training: bool, batch_size: int = 8) -> None:
    rows = verify(name, image_size=image_size, training=training, batch_size=batch_size, dtypes=("float64",))
    print(table(rows))
    trunk = abstract(ARCHITECTURES[name].build)
    kinds = ["evaluation", "training"]
    expected = {f"{kind}, {stage}" for kind in kinds for stage in (*trunk.STAGES, "pooled", "logits")}
    expected |= {"gradients", "weights"} if training else set()
    if not name.startswith(("vit", "convnext")):
        expected |= {"statistics"} | ({"moved statistics"} if training else set())
    assert {row.what for row in rows} == expected
    assert largest(rows, "JAX float64") <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "image_size", "training"), [*SAMPLE, *(pytest.param(*one, marks=pytest.mark.whole) for one in WHOLE)]
)
def test_float64(name: str, image_size: int, training: bool) -> None:
    _check(name, image_size, training)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size", "training"), SLOW)
def test_float64_of_the_rest(name: str, image_size: int, training: bool) -> None:
    _check(name, image_size, training, batch_size=4 if image_size <= 64 else 2)


@pytest.mark.whole  # the golden file holds the same
def test_gradients_and_steps_of_a_small_vision_transformer(torchvision) -> None:
    """That of the golden file: for a published one they take 10 GB (the slow tests do it)."""
    trunk = SMALL_TRUNKS["vit"]
    for row in differences(trunk.run("jax"), trunk.run("torch")):
        print(f"{row.kind}: {row.largest:.1e} of {row.compared:,} {row.where}")
        assert row.compared > 0 and row.largest <= TOLERANCE, row


@pytest.mark.parametrize(
    "family", [one if one == "vit" else pytest.param(one, marks=pytest.mark.whole) for one in DROPPING]
)
def test_what_drops_at_random_is_equal_with_torchs_masks(torchvision, family: str) -> None:
    """Dropout and stochastic depth: the rates, the places, and what is done with a mask."""
    import torch

    trunk, masks = DROPPING[family], []
    torch.manual_seed(3)
    theirs = trunk.run("torch", masks)
    assert len(masks) == 3 and len(masks[0]) > 2
    dropped = [np.mean(mask == 0) for step in masks for mask in step]
    assert 0 < np.mean(dropped) < 0.7 and not all(np.array_equal(a, b) for a, b in zip(masks[0], masks[1], strict=True))
    for row in differences(trunk.run("jax", masks), theirs):
        print(f"{row.kind}: {row.largest:.1e} of {row.compared:,} {row.where}")
        assert row.compared > 0 and row.largest <= TOLERANCE, row
    without = {row.kind: row.largest for row in differences(trunk.run("jax"), theirs)}
    assert without["evaluation"] <= TOLERANCE < 1e-3 < without["training"]


@pytest.mark.whole
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"])
def test_the_smallest_of_each_family_with_torchs_masks(name: str) -> None:
    rows = verify(name, image_size=64, dropping=True)
    print(table(rows))
    assert list(rows[0].differences) == ["JAX float64"] and largest(rows, "JAX float64") <= TOLERANCE


def test_every_architecture_is_compared() -> None:
    assert {name for name, *_ in (*SAMPLE, *WHOLE, *SLOW)} == set(TORCHVISIONS)


@every_architecture
def test_names_shapes_and_what_a_layer_is_told(torchvision, name: str) -> None:
    """Of every tensor; epsilon and momentum of every BatchNorm; the rates of dropout and stochastic depth, in order."""
    import torch

    theirs, ours = _meta_model(torchvision, name), abstract(ARCHITECTURES[name].build, num_classes=1000)
    assert torch_shapes(ours) == {n: tuple(tensor.shape) for n, tensor in theirs.state_dict().items()}
    norms = [module for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    told = {(module.eps, round(1 - module.momentum, 12)) for module in norms}
    assert {(m.epsilon, m.momentum) for _, m in nnx.iter_modules(ours) if isinstance(m, BatchNorm)} == told
    depths = [m.p for m in theirs.modules() if type(m).__name__ == "StochasticDepth"]
    rates = [m.rate for _, m in nnx.iter_modules(ours) if isinstance(m, StochasticDepth)]
    np.testing.assert_allclose(sorted(rates), sorted(depths), rtol=1e-12)
    dropouts = {m.p for m in theirs.modules() if isinstance(m, torch.nn.Dropout)}
    plain = {m.rate for _, m in nnx.iter_modules(ours) if isinstance(m, Dropout) and not isinstance(m, StochasticDepth)}
    assert plain == dropouts
    layer_norms = {m.eps for m in theirs.modules() if isinstance(m, torch.nn.LayerNorm)}
    assert {m.epsilon for _, m in nnx.iter_modules(ours) if isinstance(m, nnx.LayerNorm)} == layer_norms


@every_architecture
def test_the_registry_is_torchvisions(torchvision, name: str) -> None:
    architecture = ARCHITECTURES[name]
    enum = torchvision.models.get_model_weights(name)
    published = {entry.name: entry for entry in architecture.published}
    by_file = {weights.url.rsplit("/", 1)[1].removesuffix(".pth"): weights for weights in enum}
    assert set(published) - {"resnet18-5c106cde"} == set(by_file)
    default = architecture.published[0]
    assert by_file[default.name] is enum.DEFAULT or by_file[default.name] == enum.DEFAULT
    for file, weights in by_file.items():
        entry, transforms = published[file], weights.transforms()
        assert entry.url == weights.url and entry.enum == weights.name and entry.architecture == name
        assert entry.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert entry.mebibytes == weights.meta["_file_size"]
        assert ([entry.image_size], [entry.resize]) == (transforms.crop_size, transforms.resize_size)
        assert entry.interpolation == transforms.interpolation.value
        assert (list(entry.mean), list(entry.std)) == (transforms.mean, transforms.std)
        assert ("NC" in entry.licence) == ("license" in weights.meta)
        trunk = abstract(architecture.build_for, entry.name, num_classes=1000)
        assert count_parameters(trunk) == weights.meta["num_params"]
        # torchvision counts with fewer digits.
        assert round(count_multiply_adds(trunk, entry.image_size) / 1e9, 3) == pytest.approx(
            weights.meta["_ops"], abs=2e-3
        )


@pytest.mark.parametrize(("old", "new"), [(64, 96), (64, 32), (96, 16), (16, 64)])
def test_positions_are_resized_as_torchvision_does(torchvision, old: int, new: int) -> None:
    """When weights are loaded, and as the network runs on pictures of another size."""
    import jax
    import jax.numpy as jnp
    import torch

    from facefeat_jax.models import VisionTransformer
    from facefeat_jax.models._positions import resized_positions

    with jax.enable_x64(True):
        build = {"patch": 8, "depth": 1, "width": 24, "heads": 3, "hidden": 40, "param_dtype": "float64"}
        source = abstract(VisionTransformer, **build, image_size=old)
        stream = np.random.RandomState(0)
        tensors = {n: stream.standard_normal(shape) for n, shape in torch_shapes(source).items()}
        expected = torchvision.models.vision_transformer.interpolate_embeddings(
            new, 8, {n: torch.from_numpy(t.copy()) for n, t in tensors.items()}
        )["encoder.pos_embedding"].numpy()
        loaded = to_torch(to_flax(tensors, abstract(VisionTransformer, **build, image_size=new)))
        np.testing.assert_allclose(loaded["encoder.pos_embedding"], expected, rtol=0, atol=1e-12)
        running = resized_positions(jnp.asarray(tensors["encoder.pos_embedding"]), (new // 8, new // 8))
        np.testing.assert_allclose(running, expected, rtol=0, atol=1e-12)
        # The network made for the old size and run on the new one is the network loaded for the new one.
        images = jnp.asarray(stream.standard_normal((1, new, new, 3)))
        here = to_flax(tensors, source)(images)
        there = to_flax(tensors, abstract(VisionTransformer, **build, image_size=new))(images)
        np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    ["resnet34", *(pytest.param(n, marks=pytest.mark.whole) for n in ("efficientnet_b3", "vit_l_32", "vit_b_16"))],
)
def test_files_are_recognised(torchvision, name: str) -> None:
    shapes = {n: tuple(tensor.shape) for n, tensor in _meta_model(torchvision, name).state_dict().items()}
    tensors = {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}
    assert recognise(tensors) == name
    assert recognise({f"backbone.{n}": tensor for n, tensor in tensors.items()}) == name


def test_files_of_others_are_not_recognised(torchvision) -> None:
    for name in ("vit_h_14", "densenet121"):
        shapes = {n: tuple(tensor.shape) for n, tensor in _meta_model(torchvision, name).state_dict().items()}
        assert recognise({n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}) is None


@pytest.mark.parametrize("replace", [(False, True, True), pytest.param((True, False, True), marks=pytest.mark.whole)])
def test_dilation_and_group_norm_are_torchvisions(torchvision, replace: tuple[bool, ...]) -> None:
    """Stages, logits and gradients of one block a stage, in float64."""
    import jax
    import jax.numpy as jnp
    import torch

    from facefeat_jax.models import Bottleneck, GroupNorm, ResNet

    kind = torchvision.models.resnet
    theirs = kind.ResNet(
        kind.Bottleneck,
        [2, 2, 2, 2],
        num_classes=5,
        replace_stride_with_dilation=list(replace),
        norm_layer=lambda width: torch.nn.GroupNorm(32, width),
    ).double()
    stream = np.random.RandomState(0)
    tensors = {
        n: stream.standard_normal(t.shape) / np.sqrt(max(t[0].numel(), 2)) for n, t in theirs.state_dict().items()
    }
    theirs.load_state_dict({n: torch.from_numpy(t.copy()) for n, t in tensors.items()})
    pixels = stream.standard_normal((2, 65, 65, 3))
    with jax.enable_x64(True):
        options = {"block": Bottleneck, "norm_layer": GroupNorm, "replace_stride_with_dilation": replace}
        ours = to_flax(tensors, abstract(ResNet, (2, 2, 2, 2), num_classes=5, param_dtype="float64", **options))
        graphdef, params = nnx.split(ours)

        def run(params, images):
            return nnx.merge(graphdef, params)(images)

        logits = jax.jit(run)(params, jnp.asarray(pixels))
        gradients = jax.jit(jax.grad(lambda p, x: jnp.sum(run(p, x) ** 2)))(params, jnp.asarray(pixels))
        gradient_tensors = to_torch(nnx.merge(graphdef, gradients))
        maps = jax.jit(lambda p, x: nnx.merge(graphdef, p).stages(x))(params, jnp.asarray(pixels))
    outputs = theirs(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(logits, outputs.detach().numpy(), rtol=1e-9, atol=1e-9)
    (outputs**2).sum().backward()
    for name, parameter in theirs.named_parameters():
        expected = parameter.grad.numpy()
        np.testing.assert_allclose(gradient_tensors[name], expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
    assert maps["layer4"].shape[1] == 9  # 65 pixels at stride 8
    with pytest.raises(NotImplementedError):
        torchvision.models.resnet18(replace_stride_with_dilation=list(replace))
    with pytest.raises(ValueError, match="bottlenecks"):
        abstract(ARCHITECTURES["resnet18"].build, replace_stride_with_dilation=replace)
