"""Signatures are checked while tests run: shapes, dtypes, and sizes that have to be the same."""

from __future__ import annotations

import jax.numpy as jnp
import jaxtyping
import pytest
from flax import nnx

from facefeat_jax.models import BatchNorm, Head, normalize
from facefeat_jax.training._losses import per_example_loss


@pytest.mark.parametrize(
    "call",
    [
        lambda: normalize(jnp.zeros((2, 8, 8, 3), jnp.float32)),
        lambda: Head(4, 2, rngs=nnx.Rngs(0))(jnp.zeros((2, 3, 4))),
        lambda: BatchNorm(3)(jnp.zeros((4, 2, 3)), mask=jnp.ones(5, bool)),
        lambda: BatchNorm(3)(jnp.zeros((4, 2, 3)), mask=jnp.ones(4)),
        lambda: per_example_loss(jnp.zeros((4, 2)), jnp.zeros(3, int)),
    ],
    ids=["dtype", "rank", "two sizes", "no booleans", "labels of another batch"],
)
def test_what_does_not_fit_is_seen(call) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        call()
