"""Max-pooling on CPU: the values, the ties and the derivatives of what it stands in for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from facefeat_jax.models.cpu.pooling import max_pool

SHAPES = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0)]  # window, stride, pad


def _reference(inputs: jax.Array, window: int, stride: int, pad: int) -> jax.Array:
    return nnx.max_pool(inputs, (window, window), strides=(stride, stride), padding=((pad, pad), (pad, pad)))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 5)], ids=str)
@pytest.mark.parametrize(("window", "stride", "pad"), SHAPES)
def test_values_and_gradients_are_xlas_ties_included(size, window: int, stride: int, pad: int) -> None:
    with jax.enable_x64(True):
        stream = np.random.RandomState(0)
        # Small integers: nearly every window has ties, as maps after a ReLU do.
        inputs = jnp.asarray(stream.randint(-2, 2, (2, *size, 3)), jnp.float64)
        outputs, pullback = jax.vjp(lambda x: max_pool(x, window, stride, pad), inputs)
        expected, expected_pullback = jax.vjp(lambda x: _reference(x, window, stride, pad), inputs)
        np.testing.assert_array_equal(outputs, expected)
        cotangent = jnp.asarray(stream.randint(1, 100, outputs.shape), jnp.float64)
        np.testing.assert_array_equal(pullback(cotangent)[0], expected_pullback(cotangent)[0])


@pytest.mark.usefixtures("unchecked")  # check_grads calls it with numpy's arrays
def test_derivatives_of_every_kind() -> None:
    with jax.enable_x64(True):
        inputs = jnp.asarray(np.random.RandomState(1).permutation(2 * 5 * 6 * 2).reshape(2, 5, 6, 2), jnp.float64)
        check_grads(lambda x: jnp.sum(max_pool(x, 3, 2, 1) ** 2) / 100, (inputs,), order=2, modes=("fwd", "rev"))


def test_nan_wins_as_in_torch() -> None:
    inputs = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, 0, 0, 0].set(jnp.nan)
    outputs = np.asarray(max_pool(inputs, 3, 2, 1))[0, :, :, 0]
    np.testing.assert_array_equal(outputs, [[np.nan, 7], [13, 15]])


def test_elsewhere_it_is_flaxs(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(pool) -> str:
        return str(jax.make_jaxpr(lambda x: pool(x, 3, 2, 1))(jnp.zeros((1, 6, 6, 2))))

    assert "reduce_window" not in program(max_pool)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert program(max_pool) == program(_reference)
