"""Which parameters are trained, by the stages of the trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flax import nnx

from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.trunk import Stages, Trunk
from facefeat_jax.system.errors import UserError, unknown

_ALONE = ("all", "none", "last")


def trained_modules(stages: Stages, trainable: Iterable[str], last: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the trunk's modules that are trained.

    Args:
      stages: the trunk's `STAGES`.
      trainable: names of stages, or `all`, or `none`, or `last`.
      last: what `last` stands for: the trunk's `LAST`; the default is the final stage.

    Raises:
      UserError: there is no such stage.
    """
    names = tuple(trainable)
    for name in names:
        if name in _ALONE and len(names) > 1:
            raise UserError(f"--trainable {name} stands alone, got {list(names)}")
        if name not in stages and name not in _ALONE:
            raise unknown("stage of the trunk", name, [*stages, *_ALONE])
    if names == ("all",):
        names = tuple(stages)
    elif names == ("none",):
        names = ()
    elif names == ("last",):
        names = tuple(stages)[-1:] if last is None else tuple(last)
    return tuple(module for stage in stages if stage in names for module in stages[stage])


def trained_parameters(
    model: MultiTaskModel | Trunk, trainable: str | Iterable[str]
) -> Callable[[tuple[Any, ...], Any], bool]:
    """Returns a filter for the parameters that are trained when the rest of the trunk is frozen.

    Use it wherever NNX takes a filter: `nnx.Optimizer(model, optax.adam(1e-4), wrt=f)`,
    `nnx.grad(loss, argnums=nnx.DiffState(0, f))`, `nnx.split(model, f, ...)`. BatchNorms of frozen stages still
    normalise with the batch and move their statistics in training mode, as PyTorch's do when only `requires_grad` is
    taken away; `trunk.layer1.eval()` and the like stop that.

    Args:
      model: a trunk, whose classifier is trained too, or a multi-task model, whose heads are.
      trainable: names of stages, or `all`, or `none`, or `last` (the trunk's last block).

    Raises:
      UserError: the trunk has no such stage.
    """
    trunk = model.trunk if isinstance(model, MultiTaskModel) else model
    names = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    frozen = {module for modules in trunk.STAGES.values() for module in modules}
    frozen -= set(trained_modules(trunk.STAGES, names, trunk.LAST))
    inside = ("trunk",) if isinstance(model, MultiTaskModel) else ()
    is_param = nnx.filterlib.to_predicate(nnx.Param)

    def is_trained(path: tuple[Any, ...], value: Any) -> bool:
        in_trunk = path[: len(inside)] == inside
        return is_param(path, value) and not (in_trunk and path[len(inside)] in frozen)

    return is_trained
