"""The detour for small maps is exact, and taken on CPU and small maps only."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from facefeat_jax.models import cpu_convolution
from facefeat_jax.models.cpu_convolution import LARGEST_SIDE, conv_as_patches, conv_general_dilated

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
MAPS = [(side, side) for side in range(1, LARGEST_SIDE + 1)] + [(1, 4), (3, 2)]


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((1, 3, 7), (1, 2))))
@pytest.mark.parametrize("size", MAPS, ids=str)
def test_values_and_gradients_equal_lax(size: tuple[int, int], kernel: int, stride: int) -> None:
    stream = np.random.RandomState(kernel + 10 * stride)
    padding = ((kernel // 2, kernel // 2),) * 2
    with jax.enable_x64(True):
        inputs = jnp.asarray(stream.standard_normal((3, *size, 4)))
        weights = jnp.asarray(stream.standard_normal((kernel, kernel, 4, 5)))

        def reference(inputs, weights):
            return lax.conv_general_dilated(
                inputs, weights, (stride, stride), padding, dimension_numbers=DIMENSIONS, precision="highest"
            )

        def patches(inputs, weights):
            return conv_as_patches(inputs, weights, (stride, stride), padding)

        def both(inputs, weights, cotangent):
            results = []
            for convolution in (patches, reference):
                outputs, pullback = jax.vjp(convolution, inputs, weights)
                results.append((outputs, *pullback(cotangent)))
            return results

        shape = jax.eval_shape(reference, inputs, weights).shape
        ours, theirs = jax.jit(both)(inputs, weights, jnp.asarray(stream.standard_normal(shape)))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.dtype == jnp.float64
            assert _relative(np.asarray(mine), np.asarray(other)) <= 1e-12


def _program(convolution, side: int, **changes) -> str:
    arguments = {"padding": ((1, 1), (1, 1)), "dimension_numbers": DIMENSIONS, "feature_group_count": 1, **changes}
    inputs = jnp.zeros((2, side, side, 4))
    weights = jnp.zeros((3, 3, 4 // arguments["feature_group_count"], 4))
    return str(jax.make_jaxpr(lambda x, w: convolution(x, w, (1, 1), **arguments))(inputs, weights))


def test_cpu_convolution_on_cpu_take_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    program = _program(conv_general_dilated, LARGEST_SIDE)
    assert "conv_general_dilated" not in program
    assert "dot_general" in program


@pytest.mark.parametrize(
    ("backend", "side", "changes"),
    [
        ("cpu", LARGEST_SIDE + 1, {}),
        ("gpu", 1, {}),
        ("gpu", LARGEST_SIDE, {}),
        ("tpu", 2, {}),
        ("cpu", 2, {"padding": "SAME"}),
        ("cpu", 4, {"rhs_dilation": (2, 2)}),
        ("cpu", 4, {"lhs_dilation": (2, 2)}),
        ("cpu", 2, {"feature_group_count": 2}),
    ],
)
def test_elsewhere_the_program_is_laxs(monkeypatch: pytest.MonkeyPatch, backend: str, side: int, changes: dict) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert _program(conv_general_dilated, side, **changes) == _program(lax.conv_general_dilated, side, **changes)


def test_a_long_thin_map_is_not_small(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(cpu_convolution, "conv_as_patches", lambda *args, **kwargs: called.append(args))
    conv_general_dilated(
        jnp.zeros((1, 2, LARGEST_SIDE + 1, 4)),
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
