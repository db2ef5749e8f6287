"""Counts parameters and multiply-adds of a trunk without computing anything or creating weights."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.extend import core

from facefeat_jax.models.trunk import Trunk


def count_parameters(trunk: nnx.Module) -> int:
    """Returns how many trained numbers a module has; it may be abstract. Running statistics are not among them."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(trunk, nnx.Param)))


def count_multiply_adds(trunk: Trunk, image_size: int) -> int:
    """Returns the multiply-adds of one picture's forward pass: those of its convolutions and matrix products.

    Normalisation, activations, pooling and softmax are left out, as is usual. FLOPs are twice as many.

    Args:
      trunk: it may be abstract, and is left as it is.
      image_size: side of the picture in pixels.
    """
    trunk = nnx.clone(trunk)
    trunk.eval()
    plain_convolutions(trunk)
    graphdef, state = nnx.split(trunk)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, trunk.in_channels), jnp.float32)
    program = jax.make_jaxpr(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)
    return _count(program.jaxpr)


def plain_convolutions(module: nnx.Module) -> None:
    """Has a module convolve as the textbook does, instead of the forms with fewer products for some machines."""
    for _, inner in nnx.iter_modules(module):
        if isinstance(inner, nnx.Conv):
            inner.conv_general_dilated = lax.conv_general_dilated


def _count(program: core.Jaxpr) -> int:
    return sum(_count_one(equation) for equation in program.eqns)


def _count_one(equation: core.JaxprEqn) -> int:
    if equation.primitive.name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return math.prod(_shape(equation.outvars[0])) * math.prod(kernel) // features
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        inputs = _shape(equation.invars[0])
        return math.prod(_shape(equation.outvars[0])) * math.prod(inputs[axis] for axis in contracted)
    return sum(_count(inner) for inner in _inner_programs(equation))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _inner_programs(equation: core.JaxprEqn) -> list[Any]:
    """Returns the programs that an equation runs, each once: what is jitted, or has a derivative of its own."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            inner = equation.params[name]
            return [getattr(inner, "jaxpr", inner)]
    return []
