"""Parameters laid out on a mesh by the names of their axes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facefeat_jax.models.sharding import axis_rules
from facefeat_jax.system.errors import UserError

# A Vision Transformer on four devices, its MLPs split by one rule: what is held, computed and differentiated.
PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from jax.sharding import AxisType
from facefeat_jax.models import VisionTransformer
from facefeat_jax.models.sharding import axis_rules

mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
vit = VisionTransformer(8, 1, 24, 3, 48, image_size=16, rngs=nnx.Rngs(0))
vit.eval()
pictures = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
graphdef, state = nnx.split(vit)
run = jax.jit(jax.value_and_grad(lambda state, x: jnp.sum(nnx.merge(graphdef, state, copy=True)(x) ** 2)))
with nnx.logical_axis_rules(axis_rules(mlp="model")):
    split = jax.device_put(state, nnx.get_named_sharding(state, mesh))
expected, found = run(state, pictures), run(split, pictures)
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), expected, found)
for path, value in jax.tree_util.tree_leaves_with_path(split):
    part = value.addressable_shards[0].data.shape
    if part != value.shape:
        print(jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"), *part)
"""


def test_one_rule_splits_the_mlps_of_a_vision_transformer_over_four_devices():
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["block0.mlp.hidden.kernel 24 12", "block0.mlp.output.kernel 12 24"]


def test_an_axis_that_no_kernel_has_is_refused():
    with pytest.raises(UserError, match="Did you mean 'mlp'"):
        axis_rules(mpl="model")
