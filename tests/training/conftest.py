"""Fixtures of the training tests."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from facefeat_jax.models import MultiTaskModel, ResNet
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS


@pytest.fixture(autouse=True)
def what_comes_before_the_pages(no_pages) -> None:
    """These tests look at nothing else."""


@pytest.fixture(scope="session")
def small_model():
    """Returns a function from dtypes to a model and its description.

    It has one block per stage, so that it compiles fast, and made-up weights and statistics. Pictures have 32 pixels.
    """
    spec = ModelSpec("resnet18", {name: task.classes for name, task in TASKS.items()}, 32, "as_notebook", "random")

    def make(dtype: str, param_dtype: str = "") -> tuple[MultiTaskModel, ModelSpec]:
        options = {"dtype": dtype, "param_dtype": param_dtype or dtype}

        def build() -> MultiTaskModel:
            rngs = nnx.Rngs(0)
            return MultiTaskModel(ResNet((1, 1, 1, 1), width=8, rngs=rngs, **options), spec.tasks, rngs=rngs, **options)

        model, stream = nnx.eval_shape(build), np.random.RandomState(0)
        for _, node in nnx.iter_graph(model):
            if isinstance(node, nnx.Param | nnx.BatchStat):
                is_vector = len(node.shape) < 2
                spread = 1.0 if is_vector else 1 / math.sqrt(math.prod(node.shape[:-1]))
                made = stream.uniform(0.5, 1.5, node.shape) if is_vector else stream.standard_normal(node.shape)
                node.set_value(jnp.asarray(made * spread, node.dtype))
        return model, spec

    return make
