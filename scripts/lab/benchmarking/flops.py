"""The floating-point operations that a network's convolutions and products need, counted from its traced program.

A multiplication and an addition count as two. What is counted is the mathematics, not what some program does for it:
the gradient of a product costs as much again for each of its two operands that a gradient has to reach, and nothing
for one that none has to. Both sides of a comparison are measured against the same count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from facefeat_jax.models._values import split_values
from facefeat_jax.models.counting import plain_convolutions
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.training import _groups as groups


def forward_flops(spec: ModelSpec, tasks: Sequence[str]) -> float:
    """Returns the operations of one picture on its way through the trunk and the heads of `tasks`."""
    return _flops(spec, tasks, trained=None)


def step_flops(spec: ModelSpec, tasks: Sequence[str], trained: Sequence[str], *, after: str | None = None) -> float:
    """Returns the operations of one picture in a training step.

    Args:
      spec: the model.
      tasks: the heads in the loss; they are trained.
      trained: the trunk's modules that are trained.
      after: the stage of the trunk whose outputs the step begins with, or None for pictures.
    """
    return _flops(spec, tasks, trained=trained, after=after)


def _flops(spec: ModelSpec, tasks: Sequence[str], trained: Sequence[str] | None, after: str | None = None) -> float:
    model: MultiTaskModel = spec.abstract()
    model.eval()  # the products are the same, and a picture alone has no batch statistics
    plain_convolutions(model)
    graphdef, params, batch_stats = split_values(model)

    def merged(params: groups.Params) -> MultiTaskModel:
        statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch_stats)
        return nnx.merge(graphdef, params, statistics, copy=True)

    inputs = jax.ShapeDtypeStruct((1, spec.image_size, spec.image_size, 3), jnp.float32)
    if after is not None:
        inputs = jax.eval_shape(lambda params, pixels: merged(params).trunk(pixels, until=after), params, inputs)
    program = jax.make_jaxpr(lambda params, inputs: merged(params)(inputs, tasks=tuple(tasks), after=after))(
        params, inputs
    )
    in_loss = {f"heads/{task}" for task in tasks} if trained is not None else set()
    moving = in_loss | {f"{groups.TRUNK}/{module}" for module in trained or ()}
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    reached = [_top(path) in moving for path, _ in leaves]
    cost, _ = count(program.jaxpr, [*reached, False])
    return cost


def _top(path: tuple[Any, ...]) -> str:
    """Returns `trunk/module` or `heads/task` of a leaf of the parameters."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path[:2])


def product_flops(equation: Any) -> float | None:
    """Returns the operations of a convolution or product, and None for everything else."""
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / out_channels
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    return None


def product_numbers(equation: Any) -> float | None:
    """Returns how many numbers a convolution or product reads and writes, and None for everything else.

    Its gradients read and write as many again, each: what was an output is an input, and the other way round.
    """
    if product_flops(equation) is None:
        return None
    return float(sum(math.prod(atom.aval.shape) for atom in (*equation.invars[:2], *equation.outvars)))


def count(
    program: Any, reached: Sequence[bool], cost_of: Callable[[Any], float | None] = product_flops
) -> tuple[float, list[bool]]:
    """Returns what a jaxpr costs with its gradients, and which of its outputs depend on what a gradient has to reach.

    Args:
      program: the jaxpr.
      reached: per input, whether it depends on a trained parameter.
      cost_of: what an equation costs, and each of its gradients as well; None where it costs nothing.
    """
    depends: dict[Any, bool] = dict(zip(program.invars, reached, strict=True))

    def is_reached(atom: Any) -> bool:
        return not isinstance(atom, core.Literal) and depends.get(atom, False)

    total = 0.0
    for equation in program.eqns:
        inputs = [is_reached(atom) for atom in equation.invars]
        outputs = [any(inputs)] * len(equation.outvars)
        if (once := cost_of(equation)) is not None:
            total += once * (1 + sum(inputs[:2]))
        else:
            for inner in _inner(equation):
                if len(inner.invars) == len(inputs) and len(inner.outvars) == len(outputs):
                    cost, outputs = count(inner, inputs, cost_of)
                    total += cost
                    break  # a function and its own gradient: the function is what counts
        depends |= zip(equation.outvars, outputs, strict=True)
    return total, [is_reached(atom) for atom in program.outvars]


def _inner(equation: Any) -> Iterator[Any]:
    """Yields the jaxprs that an equation calls."""
    for value in equation.params.values():
        if hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr
        elif hasattr(value, "eqns"):
            yield value
