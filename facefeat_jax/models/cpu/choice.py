"""An operation in two forms: one for CPU, one for all other platforms. Lowering takes that of its own platform.

So a program does not depend on the host that traced it (`jax.default_backend()`), and one that `jax.export` makes on a
laptop for a TPU holds what a TPU runs fast. `lax.platform_dependent` chooses at lowering as well, but it leaves a
conditional around each form in what is lowered, and its derivative carries the intermediate values of both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir, partial_eval

Form = Callable[..., jax.Array]
"""A function from arrays to an array; hashable, and equal to others of the same options: programs are found again."""


def by_platform(*args: jax.Array, cpu: Form, other: Form) -> jax.Array:
    """Computes `cpu(*args)` on CPU and `other(*args)` elsewhere; the platform is known when it is lowered.

    It can be differentiated, in every mode and more than once, and vectorised, if both forms can.

    Args:
      *args: arrays, floating.
      cpu: the form for CPU.
      other: the form for all other platforms, of the same shape and dtype.
    """
    return _choice.bind(*args, cpu=cpu, other=other)


_choice = Primitive("by_platform")


@functools.partial(jax.jit, static_argnames=("cpu", "other"))
def _compiled(*args: jax.Array, cpu: Form, other: Form) -> jax.Array:
    return _choice.bind(*args, cpu=cpu, other=other)


@_choice.def_impl
def _now(*args: jax.Array, cpu: Form, other: Form) -> jax.Array:
    with jax.disable_jit(False):  # compiled is the only way that it can be run
        return _compiled(*args, cpu=cpu, other=other)


@_choice.def_abstract_eval
def _shape(*args: Any, cpu: Form, other: Form) -> Any:
    return jax.make_jaxpr(other)(*args).out_avals[0]


def _lowering(name: str) -> Callable[..., Any]:
    def lower(context: mlir.LoweringRuleContext, *args: Any, **forms: Form) -> Any:
        # A derivative's values are not asked for, so what only they need is left out.
        program = jax.make_jaxpr(forms[name])(*context.avals_in)
        needed, _ = partial_eval.dce_jaxpr(program.jaxpr, [True], instantiate=True)
        return mlir.lower_fun(jaxpr_as_fun(program.replace(jaxpr=needed)))(context, *args)

    return lower


mlir.register_lowering(_choice, _lowering("other"))
mlir.register_lowering(_choice, _lowering("cpu"), platform="cpu")


@dataclass(frozen=True)
class _Tangent:
    """The derivative of a form along an argument: takes the arguments, then a tangent, in which it is linear."""

    form: Form
    argument: int

    def __call__(self, *args: jax.Array) -> jax.Array:
        *values, tangent = args

        def along(value: jax.Array) -> jax.Array:
            return self.form(*values[: self.argument], value, *values[self.argument + 1 :])

        return jax.jvp(along, (values[self.argument],), (tangent,))[1]


@dataclass(frozen=True)
class _Transposed:
    """The transpose of a form along an argument in which it is linear: takes the other arguments, then a cotangent."""

    form: Form
    argument: int
    aval: Any

    def __call__(self, *args: jax.Array) -> jax.Array:
        *values, cotangent = args

        def along(value: jax.Array) -> jax.Array:
            return self.form(*values[: self.argument], value, *values[self.argument :])

        return jax.linear_transpose(along, self.aval)(cotangent)[0]


@dataclass(frozen=True)
class _Mapped:
    """A form over one more axis of some arguments."""

    form: Form
    axes: tuple[int | None, ...]

    def __call__(self, *args: jax.Array) -> jax.Array:
        return jax.vmap(self.form, self.axes)(*args)


def _jvp(primals: tuple[jax.Array, ...], tangents: tuple[Any, ...], *, cpu: Form, other: Form) -> tuple[Any, Any]:
    outputs = by_platform(*primals, cpu=cpu, other=other)
    terms = [
        by_platform(*primals, tangent, cpu=_Tangent(cpu, number), other=_Tangent(other, number))
        for number, tangent in enumerate(tangents)
        if type(tangent) is not ad.Zero
    ]
    return outputs, functools.reduce(ad.add_tangents, terms)


def _transpose(cotangent: Any, *args: Any, cpu: Form, other: Form) -> list[Any]:
    (number,) = (number for number, value in enumerate(args) if ad.is_undefined_primal(value))
    aval = args[number].aval
    if type(cotangent) is ad.Zero:
        return [ad.Zero(aval) if at == number else None for at in range(len(args))]
    others = [value for at, value in enumerate(args) if at != number]
    forms = {name: _Transposed(form, number, aval) for name, form in (("cpu", cpu), ("other", other))}
    return [by_platform(*others, cotangent, **forms) if at == number else None for at in range(len(args))]


def _batch(args: tuple[jax.Array, ...], dims: tuple[Any, ...], *, cpu: Form, other: Form) -> tuple[jax.Array, int]:
    return by_platform(*args, cpu=_Mapped(cpu, tuple(dims)), other=_Mapped(other, tuple(dims))), 0


ad.primitive_jvps[_choice] = _jvp
ad.primitive_transposes[_choice] = _transpose
batching.primitive_batchers[_choice] = _batch
