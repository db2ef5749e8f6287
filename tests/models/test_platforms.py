"""What is lowered holds the forms of the platform that it is lowered for, whatever the host that traced it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export, lax
from jax.test_util import check_grads

from facefeat_jax.models import abstract, list_models
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.runs.spec import ModelSpec

from ..made import filled, lowered, products

pytestmark = pytest.mark.long

# Of a ResNet18 without classifier, on pictures of 64 pixels, batch 8: (convolutions, matrix products).
FORWARD = {"cpu": (7, 58), "cuda": (20, 0), "tpu": (20, 0)}
BOTH = {"cuda": (59, 0), "tpu": (59, 0)}  # the first layer has no gradient of its inputs


def _split(name: str, **options):
    model = abstract(get_architecture(name).build, **options)
    model.eval()
    graphdef, state = nnx.split(model)
    return state, lambda state, images: nnx.merge(graphdef, state)(images)


@pytest.mark.parametrize("platform", FORWARD)
def test_a_program_is_that_of_its_platform(platform: str) -> None:
    state, run = _split("resnet18")
    program = lowered(run, state, jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32), platform=platform)
    assert products(program) == FORWARD[platform]
    assert "stablehlo.case" not in program  # nothing is left to be decided


@pytest.mark.parametrize("platform", BOTH)
def test_so_are_its_gradients(platform: str) -> None:
    state, run = _split("resnet18")

    def loss(state, images):
        return jnp.sum(run(state, images) ** 2)

    images = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
    program = lowered(jax.grad(loss, allow_int=True), state, images, platform=platform)
    assert products(program) == BOTH[platform]
    assert "stablehlo.case" not in program and "select_and_scatter" in program


def test_one_program_takes_any_batch_on_any_platform(small_trunk: str) -> None:
    model = filled(abstract(get_architecture(small_trunk).build))
    model.eval()
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    program = export.export(jax.jit(model), platforms=("cpu", "cuda", "tpu"))(images)
    for count in (1, 5):
        pictures = jnp.asarray(np.random.RandomState(count).standard_normal((count, 32, 32, 3)), jnp.float32)
        np.testing.assert_allclose(program.call(pictures), model(pictures), rtol=1e-4, atol=1e-5)


def free(name: str, size: int) -> None:
    """Lowers a trunk with a free batch for each platform."""
    state, run = _split(name)
    (batch,) = export.symbolic_shape("batch")
    for platform in ("cpu", "cuda", "tpu"):
        program = export.export(jax.jit(run), platforms=[platform])
        text = program(state, jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)).mlir_module()
        assert "stablehlo.case" not in text


@pytest.mark.parametrize("family", ["efficientnet", "vit"])
def test_the_batch_of_every_family_may_be_free(tiny_trunks: dict[str, str], family: str) -> None:
    free(tiny_trunks[family], 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_the_batch_of_every_trunk_may_be_free(name: str) -> None:
    free(name, get_architecture(name).image_size)


@pytest.mark.usefixtures("unchecked")  # check_grads calls it with numpy's arrays
def test_the_choice_differentiates_and_maps_in_every_mode() -> None:
    from facefeat_jax.models.cpu.convolution import conv_general_dilated

    def convolve(inputs, kernel):
        return conv_general_dilated(
            inputs, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    with jax.enable_x64(True):
        stream = np.random.RandomState(0)
        inputs, kernels = jnp.asarray(stream.randn(2, 4, 5, 2)), jnp.asarray(stream.randn(3, 3, 3, 2, 2))
        check_grads(convolve, (inputs, kernels[0]), order=2, modes=("fwd", "rev"))
        each = jnp.stack([convolve(inputs, kernel) for kernel in kernels])
        np.testing.assert_allclose(jax.vmap(convolve, (None, 0))(inputs, kernels), each, rtol=1e-12, atol=1e-12)
        gradients = jax.vmap(jax.grad(lambda k: jnp.sum(convolve(inputs, k) ** 2)))(kernels)
        _, stacked = lax.scan(lambda c, k: (c, jax.grad(lambda k: jnp.sum(convolve(inputs, k) ** 2))(k)), 0, kernels)
        np.testing.assert_allclose(gradients, stacked, rtol=1e-12)
        (kept,) = jax.vjp(jax.checkpoint(convolve), inputs, kernels[0])[1](each[0])[1:]
        np.testing.assert_allclose(kept, jax.vjp(convolve, inputs, kernels[0])[1](each[0])[1], rtol=1e-12)
        with jax.disable_jit():
            np.testing.assert_allclose(convolve(inputs, kernels[0]), each[0], rtol=1e-12)


def test_the_choice_works_over_several_devices() -> None:
    from jax.sharding import AxisType, PartitionSpec

    from facefeat_jax.models.cpu.pooling import max_pool

    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("batch")
    inputs = jnp.asarray(np.random.RandomState(0).standard_normal((2, 6, 6, 3)), jnp.float32)

    def gradient(inputs):
        return jax.grad(lambda x: jnp.sum(max_pool(x, 3, 2, 1) ** 2))(inputs)

    shared = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_array_equal(shared(inputs), gradient(inputs))


@pytest.mark.parametrize("family", ["resnet", "efficientnet", "vit"])
def test_flax_tabulates_every_family(tiny_trunks: dict[str, str], family: str) -> None:
    made_for = 32 if family == "vit" else None
    spec = ModelSpec(tiny_trunks[family], {"gender": ("a", "b")}, 32, "upright", "random", made_for=made_for)
    model = filled(spec.abstract())
    model.eval()
    images = jnp.ones((1, 32, 32, 3))
    for part in (model, model.trunk):
        table = nnx.tabulate(part, images, console_kwargs={"width": 200})
        assert type(model.trunk).__name__ in table and "Total Parameters" in table
    assert model(images)["gender"].shape == (1, 1)  # what it replaced is as it was
    assert type(spec.abstract()) is type(model)
