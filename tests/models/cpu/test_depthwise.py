"""Depthwise convolutions as shifts: the same numbers and gradients, and taken on CPU alone."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from facefeat_jax.models import abstract, efficientnet_b0, resnet18, vit_b_32
from facefeat_jax.models.counting import count_multiply_adds
from facefeat_jax.models.cpu import depthwise
from facefeat_jax.models.registry import get_architecture

from ...made import lowered

CASES = [(8, 8, 3, 1), (8, 8, 3, 2), (7, 9, 5, 1), (7, 9, 5, 2), (1, 1, 5, 1), (2, 2, 5, 2), (3, 2, 1, 1)]


@pytest.mark.parametrize(("height", "width", "kernel", "stride"), CASES)
def test_shifts_are_the_convolution(height: int, width: int, kernel: int, stride: int) -> None:
    with jax.enable_x64(True):
        stream, pad = np.random.RandomState(0), kernel // 2
        inputs = jnp.asarray(stream.standard_normal((2, height, width, 6)))
        weights = jnp.asarray(stream.standard_normal((kernel, kernel, 1, 6)))
        arguments = (stride, stride), ((pad, pad), (pad, pad))
        numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 6}

        def sides(inputs, weights):
            shifts = depthwise.conv_general_dilated(inputs, weights, *arguments, **numbers)
            plain = lax.conv_general_dilated(inputs, weights, *arguments, **numbers)
            return shifts, plain

        @jax.jit
        def both(inputs, weights):
            gradients = [
                jax.grad(lambda x, w, n=n: jnp.sum(jnp.sin(sides(x, w)[n])), argnums=(0, 1))(inputs, weights)
                for n in (0, 1)
            ]
            return sides(inputs, weights), gradients

        outputs, gradients = both(inputs, weights)
        np.testing.assert_allclose(*outputs, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(*gradients, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_choice(tiny_trunks: dict[str, str]) -> None:
    graphdef, state = nnx.split(abstract(get_architecture(tiny_trunks["efficientnet"]).build))

    def convolutions(platform: str) -> int:
        images = jnp.zeros((2, 32, 32, 3))
        program = lowered(lambda s: nnx.merge(graphdef, s)(images, rngs=nnx.Rngs(0)), state, platform=platform)
        return len(re.findall(r"feature_group_count = (?!1\b)", program))

    assert convolutions("cpu") == 0
    assert convolutions("cuda") == convolutions("tpu") == 7  # a block has one


def test_multiply_adds_do_not_depend_on_the_choice() -> None:
    """torchvision states 1.814, 0.386 and 4.409 thousand millions."""
    for build, size, expected in ((resnet18, 224, 1.814), (efficientnet_b0, 224, 0.386), (vit_b_32, 224, 4.409)):
        counted = count_multiply_adds(abstract(build, num_classes=1000), size)
        assert counted / 1e9 == pytest.approx(expected, abs=1e-3)
