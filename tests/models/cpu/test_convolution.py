"""The forms for CPU are exact, differentiate in every mode, and are taken where they should be, on CPU only."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.test_util import check_grads

from facefeat_jax.models.cpu import convolution as cpu_convolution
from facefeat_jax.models.cpu.convolution import (
    LARGEST_SIDE,
    conv_as_patches,
    conv_general_dilated,
    conv_in_parts,
    conv_winograd,
)

from ...made import lowered, products

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
MAPS = [(side, side) for side in range(1, LARGEST_SIDE + 1)] + [(1, 4), (3, 2)]


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def _assert_equals_lax(convolution, inputs_shape, kernel: int, strides, padding) -> None:
    """Asserts equality in float64 with XLA's convolution: the values, and the gradients of inputs and kernel."""
    stream = np.random.RandomState(kernel + 10 * strides[0])
    with jax.enable_x64(True):
        inputs = jnp.asarray(stream.standard_normal(inputs_shape))
        weights = jnp.asarray(stream.standard_normal((kernel, kernel, inputs_shape[-1], 5)))

        def reference(inputs, weights):
            return lax.conv_general_dilated(
                inputs, weights, strides, padding, dimension_numbers=DIMENSIONS, precision="highest"
            )

        def both(inputs, weights, cotangent):
            results = []
            for form in (convolution, reference):
                outputs, pullback = jax.vjp(form, inputs, weights)
                results.append((outputs, *pullback(cotangent)))
            return results

        shape = jax.eval_shape(reference, inputs, weights).shape
        ours, theirs = jax.jit(both)(inputs, weights, jnp.asarray(stream.standard_normal(shape)))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.dtype == jnp.float64
            assert _relative(np.asarray(mine), np.asarray(other)) <= 1e-12


@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((1, 3, 7), (1, 2))))
@pytest.mark.parametrize("size", MAPS, ids=str)
def test_patches_equal_lax(size: tuple[int, int], kernel: int, stride: int) -> None:
    strides, padding = (stride, stride), ((kernel // 2, kernel // 2),) * 2
    _assert_equals_lax(lambda x, w: conv_as_patches(x, w, strides, padding), (3, *size, 4), kernel, strides, padding)


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 0), (2, 1))], ids=str)
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (3, 3)], ids=str)
def test_winograd_equals_lax(size: tuple[int, int], padding) -> None:
    _assert_equals_lax(lambda x, w: conv_winograd(x, w, padding), (2, *size, 4), 3, (1, 1), padding)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("batch", [1, 5, 8], ids=str)
@pytest.mark.parametrize("winograd", [False, True], ids=["xla", "winograd"])
def test_parts_of_a_batch_equal_lax(
    monkeypatch: pytest.MonkeyPatch, batch: int, kernel: int, stride: int, winograd: bool
) -> None:
    monkeypatch.setattr(cpu_convolution, "PARTS", 3)
    monkeypatch.setattr(cpu_convolution, "PART_POSITIONS", 1)
    monkeypatch.setattr(cpu_convolution, "WINOGRAD_POSITIONS", 0)
    monkeypatch.setattr(cpu_convolution, "WINOGRAD_CHANNELS", 0 if winograd else 10**6)
    strides, padding = (stride, stride), ((kernel // 2, kernel // 2),) * 2
    _assert_equals_lax(lambda x, w: conv_in_parts(x, w, strides, padding), (batch, 9, 6, 4), kernel, strides, padding)


def test_the_weight_gradient_is_taken_in_parts() -> None:
    inputs, kernel = jnp.zeros((16, 60, 60, 3)), jnp.zeros((3, 3, 3, 4))

    def total(kernel):
        return jnp.sum(conv_in_parts(inputs, kernel, (1, 1), ((1, 1), (1, 1))) ** 2)

    program = str(jax.make_jaxpr(jax.grad(total))(kernel))
    assert program.count("conv_general_dilated[") == 1 + cpu_convolution.PARTS


def test_patches_are_one_loop_and_their_gradient_no_scatter() -> None:
    inputs, kernel = jnp.zeros((8, 4, 4, 3)), jnp.zeros((3, 3, 3, 4))

    def total(inputs):
        return jnp.sum(conv_as_patches(inputs, kernel, (1, 1), ((1, 1), (1, 1))) ** 2)

    forwards, backwards = (str(jax.make_jaxpr(program)(inputs)) for program in (total, jax.grad(total)))
    assert "gather[" in forwards and "concatenate[" not in forwards
    assert "scatter" not in backwards


def test_what_is_not_finite_stays_in_its_windows() -> None:
    inputs = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(jnp.nan)
    outputs = conv_as_patches(inputs, jnp.ones((3, 3, 1, 1)), (1, 1), ((1, 1), (1, 1)))
    assert np.argwhere(np.isnan(outputs[0, ..., 0])).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.usefixtures("unchecked")  # check_grads calls it with numpy's arrays
@pytest.mark.parametrize("form", ["winograd", "parts", "patches"])
def test_derivatives_of_every_kind_and_vmap(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(cpu_convolution, "PART_POSITIONS", 1)
    padding = ((1, 1), (1, 1))

    @jax.jit
    def convolve(inputs, kernel):
        if form == "winograd":
            return conv_winograd(inputs, kernel, padding)
        if form == "patches":
            return conv_as_patches(inputs, kernel, (2, 2), padding)
        return conv_in_parts(inputs, kernel, (2, 2), padding)

    with jax.enable_x64(True):
        stream = np.random.RandomState(0)
        inputs, kernels = jnp.asarray(stream.randn(2, 4, 5, 2)), jnp.asarray(stream.randn(3, 3, 3, 2, 2))
        check_grads(convolve, (inputs, kernels[0]), order=2, modes=("fwd", "rev"))
        each = jnp.stack([convolve(inputs, kernel) for kernel in kernels])
        np.testing.assert_allclose(jax.vmap(convolve, (None, 0))(inputs, kernels), each, rtol=1e-12, atol=1e-12)


def _program(convolution, platform: str, side: int, **changes) -> str:
    arguments = {"padding": ((1, 1), (1, 1)), "dimension_numbers": DIMENSIONS, "feature_group_count": 1, **changes}
    inputs = jnp.zeros((2, side, side, 4))
    weights = jnp.zeros((3, 3, 4 // arguments["feature_group_count"], 4))
    return lowered(lambda x, w: convolution(x, w, (1, 1), **arguments), inputs, weights, platform=platform)


def test_the_form_goes_by_the_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    few = _program(conv_general_dilated, "cpu", LARGEST_SIDE + 1)  # 2 x 5 x 5 positions
    assert products(few) == (0, 1)
    monkeypatch.setattr(cpu_convolution, "FEW_POSITIONS", 0)
    # Each time of another side: jax keeps what it has traced.
    small, large = (_program(conv_general_dilated, "cpu", side) for side in (LARGEST_SIDE, LARGEST_SIDE + 2))
    assert products(small) == (0, 1)  # patches
    assert products(large) == (1, 0)
    monkeypatch.setattr(cpu_convolution, "WINOGRAD_POSITIONS", 2 * (LARGEST_SIDE + 3) ** 2)
    monkeypatch.setattr(cpu_convolution, "WINOGRAD_CHANNELS", 4)
    assert products(_program(conv_general_dilated, "cpu", LARGEST_SIDE + 3)) == (0, 16)


@pytest.mark.parametrize(
    ("platform", "side", "changes"),
    [
        ("cuda", 1, {}),
        ("cuda", LARGEST_SIDE, {}),
        ("rocm", LARGEST_SIDE, {}),
        ("tpu", 2, {}),
        ("cpu", 2, {"padding": "SAME"}),
        ("cpu", 4, {"rhs_dilation": (2, 2)}),
        ("cpu", 4, {"lhs_dilation": (2, 2)}),
        ("cpu", 2, {"feature_group_count": 2}),
        ("cpu", 2, {"preferred_element_type": jnp.float32}),
    ],
)
def test_elsewhere_the_program_is_laxs(platform: str, side: int, changes: dict) -> None:
    ours, laxs = (
        _program(form, platform, side, **changes) for form in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert ours == laxs


def test_a_long_thin_map_is_not_small(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(cpu_convolution, "conv_as_patches", lambda *args, **kwargs: called.append(args))
    conv_general_dilated(
        jnp.zeros((8, 2, LARGEST_SIDE + 1, 4)),
        jnp.zeros((3, 3, 4, 4)),
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=DIMENSIONS,
    )
    assert not called


@pytest.mark.parametrize("side", [2, LARGEST_SIDE + 1])
def test_a_flax_convolution_goes_through_it(side: int) -> None:
    arguments = dict(in_features=4, out_features=6, kernel_size=(3, 3), padding=((1, 1), (1, 1)), use_bias=False)
    ours = nnx.Conv(**arguments, conv_general_dilated=conv_general_dilated, rngs=nnx.Rngs(0))
    flaxs = nnx.Conv(**arguments, rngs=nnx.Rngs(0))
    inputs = jnp.asarray(np.random.RandomState(0).standard_normal((2, side, side, 4)), jnp.float32)
    np.testing.assert_allclose(ours(inputs), flaxs(inputs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours(inputs[0]), flaxs(inputs[0]), rtol=1e-5, atol=1e-5)  # no batch axis
