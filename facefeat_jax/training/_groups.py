"""Parameter groups: the trained part of the trunk, and each head.

Each group has its own Adam state, which does not change in a step whose losses do not reach the group. torch does the
same, because `zero_grad()` sets gradients to None and Adam skips those. A single Adam over everything, with zero
gradients, would keep moving the other heads by their momentum and increase their step counts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from facefeat_jax.config import OptimizerConfig
from facefeat_jax.models._promotion import promoting, together
from facefeat_jax.models.freezing import trained_modules as trained_modules

TRUNK = "trunk"
Params = dict[str, Any]  # {"trunk": {module: ...}, "heads": {task: ...}}
Groups = dict[str, Any]  # {"trunk": {trained module: ...}, task: ...}


def adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns torch's Adam without the learning rate, which depends on the run's step and not on the group's count.

    Weight decay is decoupled (AdamW), and for kernels only: norms, biases, class tokens and position embeddings don't
    decay.
    """
    moments = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    moments = optax.GradientTransformation(moments.init, promoting(moments.update))
    if not config.weight_decay:
        return moments
    return optax.chain(moments, optax.add_decayed_weights(config.weight_decay, mask=decays))


def decays(values: Any) -> Any:
    """Returns a tree of booleans like `values`: whether each value decays."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", values)


ADAM = adam(OptimizerConfig())


def select(params: Params, modules: Iterable[str]) -> Groups:
    """Returns the groups: the trained modules of the trunk, and every head."""
    return {TRUNK: {name: params[TRUNK][name] for name in modules}, **params["heads"]}


def replace(params: Params, groups: Groups) -> Params:
    """Returns `params` with the values of the groups replaced."""
    heads = {name: groups.get(name, head) for name, head in params["heads"].items()}
    return {TRUNK: {**params[TRUNK], **groups.get(TRUNK, {})}, "heads": heads}


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
) -> tuple[Groups, dict[str, optax.OptState]]:
    """Takes one Adam step in each group that has gradients. The other groups are returned unchanged.

    Args:
      groups: the parameters.
      gradients: gradients of some groups.
      states: Adam's state of all groups.
      learning_rate: learning rate of this step.
      counts: for each head, the number of labels in its loss. A head without labels does not change, as in torch.
      optimizer: the optimizer that the states belong to.
    """
    groups, states = dict(groups), dict(states)
    for name, gradient in gradients.items():
        direction, state = optimizer.update(gradient, states[name], groups[name])
        moved = jax.tree.map(partial(_moved, learning_rate), groups[name], direction)
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
