"""BatchNorm: the mask, the modes, and what can't be normalised. torch's rules are in tests/training/test_traps.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from facefeat_jax.models import BatchNorm

REAL, PADDED = 3, 8


def _inputs(seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal((PADDED, 4, 5, 6)) * 3 + 1


def _layer() -> BatchNorm:
    layer = BatchNorm(6, param_dtype=jnp.float64)
    stream = np.random.RandomState(9)
    layer.scale[...] = jnp.asarray(stream.uniform(0.5, 1.5, 6))
    layer.bias[...] = jnp.asarray(stream.standard_normal(6))
    layer.mean[...] = jnp.asarray(stream.standard_normal(6))
    layer.var[...] = jnp.asarray(stream.uniform(0.5, 1.5, 6))
    return layer


@pytest.mark.parametrize("padding", ["copies", "huge"])
def test_a_masked_batch_equals_the_batch_cut_short(padding: str) -> None:
    """Whatever lies in the padding rows: outputs, gradients and statistics are those of the real rows alone."""
    with jax.enable_x64(True):
        real = jnp.asarray(_inputs()[:REAL])
        filling = (
            jnp.repeat(real[:1], PADDED - REAL, 0) if padding == "copies" else jnp.asarray(_inputs(1)[REAL:]) * 1e3
        )
        padded, mask = jnp.concatenate([real, filling]), jnp.arange(PADDED) < REAL
        weights = jnp.asarray(_inputs(2)[:REAL])

        def total(inputs, mask):
            layer = _layer()
            outputs = layer(inputs, mask=mask)
            return jnp.sum(outputs[:REAL] * weights), (outputs, nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat)))

        gradient_of = jax.jit(jax.grad(total, has_aux=True))
        expected_gradient, (expected, expected_stats) = gradient_of(real, None)
        gradient, (outputs, stats) = gradient_of(padded, mask)
        np.testing.assert_allclose(outputs[:REAL], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gradient[:REAL], expected_gradient, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(gradient[REAL:], 0)
        for name, value in expected_stats.items():
            np.testing.assert_allclose(stats[name], value, rtol=1e-12, err_msg=name)


def test_a_full_mask_changes_nothing() -> None:
    with jax.enable_x64(True):
        inputs, plain, masked = jnp.asarray(_inputs()), _layer(), _layer()
        np.testing.assert_allclose(plain(inputs), masked(inputs, mask=jnp.ones(PADDED, bool)), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(plain.var[...], masked.var[...], rtol=1e-12)


def test_evaluation_uses_and_keeps_the_running_statistics() -> None:
    with jax.enable_x64(True):
        layer, inputs = _layer(), _inputs()
        layer.eval()
        before = {name: np.array(getattr(layer, name)[...]) for name in ("mean", "var", "num_batches_tracked")}
        outputs = layer(jnp.asarray(inputs))
        expected = (inputs - before["mean"]) / np.sqrt(before["var"] + 1e-5) * np.array(layer.scale[...]) + np.array(
            layer.bias[...]
        )
        np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)
        for name, value in before.items():
            np.testing.assert_array_equal(getattr(layer, name)[...], value)
        layer.train()
        layer(jnp.asarray(inputs))
        assert int(layer.num_batches_tracked[...]) == 1
        assert not np.allclose(layer.mean[...], before["mean"])


def test_one_value_per_channel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two values per channel.*\(1, 1, 1, 6\)"):
        BatchNorm(6)(jnp.zeros((1, 1, 1, 6)))


def test_narrow_inputs_are_summed_wide() -> None:
    """In bfloat16 a mean over many values near 100 would come out on a grid of 0.5."""
    inputs = jnp.asarray(np.random.RandomState(0).normal(100, 0.5, (64, 8, 8, 2)), jnp.bfloat16)
    layer = BatchNorm(2, momentum=0.0)
    outputs = layer(inputs)
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(layer.mean[...], np.asarray(inputs, np.float64).mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], np.asarray(inputs, np.float64).var((0, 1, 2), ddof=1), rtol=1e-3)


def test_second_derivatives_are_those_of_the_plain_formula() -> None:
    """The statistics are written for few passes over the inputs; the plain formula says what the derivatives are."""

    def plain(x: jax.Array) -> jax.Array:
        mean, var = jnp.mean(x, (0, 1, 2), keepdims=True), jnp.var(x, (0, 1, 2), keepdims=True)
        scale, bias = (value[...].reshape(1, 1, 1, -1) for value in (_layer().scale, _layer().bias))
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    with jax.enable_x64(True):
        inputs, direction = jnp.asarray(_inputs()), jnp.asarray(_inputs(3))

        def curvature(layer):
            gradient = jax.grad(lambda x: jnp.sum(jnp.sin(layer(x))))
            return jax.jit(lambda x, way: jax.jvp(gradient, (x,), (way,)))(inputs, direction)

        for ours, expected in zip(curvature(lambda x: _layer()(x)), curvature(plain), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
