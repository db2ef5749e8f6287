"""Reading a run back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from facefeat_jax.config import load_recipe
from facefeat_jax.models._values import split_values
from facefeat_jax.runs import checkpoints
from facefeat_jax.runs.run_folder import CONFIG, open_run, write_json
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.runtime import set_numerics


@pytest.fixture
def default_numerics():
    yield
    jax.config.update("jax_enable_x64", False)


def test_a_run_in_float64_is_read_back_in_float64(tmp_path, default_numerics):
    config = load_recipe("avatars").replace(run=tmp_path, dtype="float64", param_dtype="float64")
    classes, numerics = {"glasses": ("no_glasses", "glasses")}, {"dtype": "float64", "param_dtype": "float64"}
    spec = ModelSpec("resnet18", classes, 32, "upright", "random", **numerics)
    set_numerics("float64", "float64", "default")
    _, *values = split_values(spec.abstract())
    thirds = jax.tree.map(lambda like: jnp.full(like.shape, 1 / 3).astype(like.dtype), values)
    checkpoints.save_model(tmp_path, spec, *thirds)
    write_json(tmp_path / CONFIG, config.to_json())

    # As in the process of `facefeat evaluate`, which has trained nothing before.
    jax.config.update("jax_enable_x64", False)
    model = open_run(tmp_path).model
    assert model.trunk.bn1.var.dtype == jnp.float64
    assert float(model.heads["glasses"].output.kernel[0, 0]) == 1 / 3
