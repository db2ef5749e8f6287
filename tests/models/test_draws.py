"""Weights that are drawn together are those that are drawn array by array, bit for bit."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from facefeat_jax import factory
from facefeat_jax.models import _draws as draws
from facefeat_jax.models._convolution import conv
from facefeat_jax.models.head import torch_linear


class _Layers(nnx.Module):
    """Arrays of each kind: shorter and longer than a block, and one that is drawn from a key made of another."""

    def __init__(self, param_dtype, *, rngs):
        options = {"param_dtype": param_dtype, "rngs": rngs}
        self.short, self.long = conv(3, 8, 3, **options), conv(64, 72, 3, **options)
        self.head = torch_linear(300, 130, **options)
        init = {"kernel_init": draws.xavier_uniform, "bias_init": draws.normal(1e-6)}
        self.hidden = nnx.Linear(24, 5, **init, **options)
        self.other = nnx.Param(draws.uniform(0.5)(jax.random.fold_in(rngs.params(), 3), (4,), param_dtype))


@pytest.mark.parametrize(("dtype", "impl"), [("float32", None), ("float64", None), ("float32", "rbg")])
def test_numbers_are_those_of_each_array_on_its_own(dtype, impl) -> None:
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        rngs, alone = (nnx.Rngs(params=jax.random.key(5, impl=impl), other=1) for _ in range(2))
        made = factory._drawn(lambda rngs: _Layers(jnp.dtype(dtype), rngs=rngs), rngs)
        graph, state = nnx.split(alone)

        def one_by_one(state):
            drawing = nnx.merge(graph, state)
            return nnx.state(_Layers(jnp.dtype(dtype), rngs=drawing)), nnx.state(drawing)

        compiled = jax.jit(one_by_one, compiler_options={"xla_backend_optimization_level": 1})(state)
        for found, expected in ((nnx.state(made), compiled[0]), (nnx.state(rngs), compiled[1])):
            for (path, one), other in zip(
                jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
            ):
                if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
                    one, other = jax.random.key_data(one), jax.random.key_data(other)
                np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path), strict=True)


def test_arrays_of_a_kind_share_their_program(small_trunk, monkeypatch) -> None:
    """A loop for the kernels and one for the heads, however many layers there are."""
    loops, bind = [], draws.threefry2x32_p.bind
    monkeypatch.setattr(draws.threefry2x32_p, "bind", lambda *of: loops.append(of[-1].shape) or bind(*of))
    factory.create_model(small_trunk, rngs=nnx.Rngs(0))
    assert loops.count((draws._BLOCK,)) == 2
    assert len(loops) <= 4  # the keys are drawn, too
