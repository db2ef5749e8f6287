"""Parameter groups: the trained part of the trunk, and each head.

Each group has its own Adam state, which does not change in a step whose losses do not reach the group. torch does the
same, because `zero_grad()` sets gradients to None and Adam skips those. A single Adam over everything, with zero
gradients, would keep moving the other heads by their momentum and increase their step counts.

With gradual unfreezing each stage of the trunk is a group, which does not change before its first step. Its count then
starts at 0, so that Adam's bias correction is that of moments that start at 0.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from facefeat_jax.config import OptimizerConfig
from facefeat_jax.models import layer_decay
from facefeat_jax.models._promotion import promoting, together
from facefeat_jax.models.freezing import trained_modules as trained_modules
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.trunk import Trunk

TRUNK = "trunk"
Params = dict[str, Any]  # {"trunk": {module: ...}, "heads": {task: ...}}
Groups = dict[str, Any]  # {"trunk": {trained module: ...}, task: ...}; with unfreezing "trunk.4" and so on for "trunk"


class Part(NamedTuple):
    """A group of the trunk's modules.

    Attributes:
      name: of the group.
      modules: of the trunk.
      first_step: the first step in which it is trained.
    """

    name: str
    modules: tuple[str, ...]
    first_step: int


def parts(trunk: Trunk, trained: Iterable[str], unfreeze_every: int = 0) -> tuple[Part, ...]:
    """Returns the groups of the trunk: one, or with gradual unfreezing one for each stage, the last first."""
    trained = tuple(trained)
    if not unfreeze_every:
        return (Part(TRUNK, trained, 0),)
    number_of = {place[0]: number for place, number in layer_decay.layer_numbers(trunk, coarse=True).items()}
    numbers = sorted({number_of[name] for name in trained}, reverse=True)
    return tuple(
        Part(f"{TRUNK}.{number}", tuple(name for name in trained if number_of[name] == number), unfreeze_every * turn)
        for turn, number in enumerate(numbers, start=1)
    )


def lr_scales(model: MultiTaskModel, params: Params, parts: Iterable[Part], decay: float) -> Groups:
    """Returns what the learning rate of each parameter is multiplied by, as a tree like the groups."""
    labels = layer_decay.parameter_labels(model, params)
    table = layer_decay.parameter_groups(labels, layer_decay=decay)
    return select(jax.tree.map(lambda label: table[label].lr_scale, labels), parts)


def adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns torch's Adam without the learning rate, which depends on the run's step and not on the group's count.

    Weight decay is decoupled (AdamW); what has none, `models.parameter_labels` says.
    """
    moments = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    moments = optax.GradientTransformation(moments.init, promoting(moments.update))
    if not config.weight_decay:
        return moments
    return optax.chain(moments, optax.add_decayed_weights(config.weight_decay, mask=decays))


def decays(values: Any) -> Any:
    """Returns a tree of booleans like `values`: whether each value decays."""
    return jax.tree_util.tree_map_with_path(layer_decay.decays, values)


ADAM = adam(OptimizerConfig())


def select(params: Params, parts: Iterable[Part]) -> Groups:
    """Returns the groups: those of the trunk, and every head."""
    return {part.name: {name: params[TRUNK][name] for name in part.modules} for part in parts} | params["heads"]


def replace(params: Params, groups: Groups) -> Params:
    """Returns `params` with the values of the groups replaced."""
    heads = {name: groups.get(name, head) for name, head in params["heads"].items()}
    trunk = dict(params[TRUNK])
    for name, group in groups.items():
        if name not in heads:
            trunk |= group
    return {TRUNK: trunk, "heads": heads}


def of_names(params: Params, groups: Groups) -> Groups:
    """Returns the values of `params` in the groups' places."""
    heads = params["heads"]
    return {
        name: heads[name] if name in heads else {module: params[TRUNK][module] for module in group}
        for name, group in groups.items()
    }


def init(groups: Groups, optimizer: optax.GradientTransformation = ADAM) -> dict[str, optax.OptState]:
    """Returns the initial optimizer state of each group: zero moments, count 0."""
    return {name: optimizer.init(group) for name, group in groups.items()}


def update(
    groups: Groups,
    gradients: Groups,
    states: dict[str, optax.OptState],
    learning_rate: jax.Array | float,
    counts: Mapping[str, jax.Array],
    optimizer: optax.GradientTransformation = ADAM,
    scales: Groups | None = None,
) -> tuple[Groups, dict[str, optax.OptState]]:
    """Takes one Adam step in each group that has gradients. The other groups are returned unchanged.

    Args:
      groups: the parameters.
      gradients: gradients of some groups.
      states: Adam's state of all groups.
      learning_rate: learning rate of this step.
      counts: for each head, the number of labels in its loss. A head without labels does not change, as in torch. For
        a part of the trunk, the number of steps since its first; it does not change before that.
      optimizer: the optimizer that the states belong to.
      scales: what the learning rate of each parameter is multiplied by (`lr_scales`); None for 1.
    """
    groups, states = dict(groups), dict(states)
    for name, gradient in gradients.items():
        direction, state = optimizer.update(gradient, states[name], groups[name])
        if scales is None:
            moved = jax.tree.map(partial(_moved, learning_rate), groups[name], direction)
        else:
            moved = jax.tree.map(
                lambda scale, *values: _moved(learning_rate * scale, *values), scales[name], groups[name], direction
            )
        if name in counts:
            moved, state = jax.tree.map(
                lambda new, old, count=counts[name]: jnp.where(count > 0, new, old),
                (moved, state),
                (groups[name], states[name]),
            )
        groups[name], states[name] = moved, state
    return groups, states


def _moved(learning_rate: jax.Array | float, value: jax.Array, direction: jax.Array) -> jax.Array:
    rate, start, direction = together(learning_rate, value, direction)
    return (start - rate * direction).astype(value.dtype)


@functools.cache  # the same function for the same arguments: steps are found again by it
def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step number (from 0)."""
    peak = config.learning_rate
    if config.learning_rate_schedule == "constant":
        return optax.constant_schedule(peak)
    warmup = min(config.warmup_steps, total_steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=peak / max(warmup, 1), peak_value=peak, warmup_steps=warmup, decay_steps=total_steps
    )
    return promoting(schedule)
