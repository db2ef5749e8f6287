"""Max-pooling on CPU: the values, the ties and the derivatives of what it stands in for."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from facefeat_jax.models.cpu.pooling import max_pool

from ...made import lowered

SHAPES = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0)]  # window, stride, pad


def _reference(inputs: jax.Array, window: int, stride: int, pad: int) -> jax.Array:
    return nnx.max_pool(inputs, (window, window), strides=(stride, stride), padding=((pad, pad), (pad, pad)))


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 5)], ids=str)
def test_values_and_gradients_are_xlas_ties_included(size) -> None:
    @jax.jit
    def both(inputs, weights):
        def weighed(pool, inputs, shape):
            outputs = pool(inputs, *shape)
            kept = weights[:, : outputs.shape[1], : outputs.shape[2]]
            return jnp.sum(outputs * kept), outputs

        return [
            [jax.value_and_grad(partial(weighed, pool, shape=shape), has_aux=True)(inputs) for shape in SHAPES]
            for pool in (max_pool, _reference)
        ]

    with jax.enable_x64(True):
        stream = np.random.RandomState(0)
        # Small integers: nearly every window has ties, as maps after a ReLU do.
        inputs = jnp.asarray(stream.randint(-2, 2, (2, *size, 3)), jnp.float64)
        jax.tree.map(
            np.testing.assert_array_equal, *both(inputs, jnp.asarray(stream.randint(1, 100, inputs.shape), jnp.float64))
        )


@pytest.mark.usefixtures("unchecked")  # check_grads calls it with numpy's arrays
def test_derivatives_of_every_kind() -> None:
    with jax.enable_x64(True):
        inputs = jnp.asarray(np.random.RandomState(1).permutation(2 * 5 * 6 * 2).reshape(2, 5, 6, 2), jnp.float64)
        check_grads(
            jax.jit(lambda x: jnp.sum(max_pool(x, 3, 2, 1) ** 2) / 100), (inputs,), order=2, modes=("fwd", "rev")
        )


def test_nan_wins_as_in_torch() -> None:
    inputs = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, 0, 0, 0].set(jnp.nan)
    outputs = np.asarray(max_pool(inputs, 3, 2, 1))[0, :, :, 0]
    np.testing.assert_array_equal(outputs, [[np.nan, 7], [13, 15]])


def test_elsewhere_it_is_flaxs() -> None:
    def program(pool, platform: str) -> str:
        return lowered(lambda x: pool(x, 3, 2, 1), jnp.zeros((1, 6, 6, 2)), platform=platform)

    assert "reduce_window" not in program(max_pool, "cpu")
    assert program(max_pool, "cuda") == program(_reference, "cuda")
