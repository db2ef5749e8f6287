"""What a config leaves to be chosen, and what an interrupted run has chosen before."""

from __future__ import annotations

import dataclasses

import jax

from facefeat_jax.config import TrainConfig

_SCAN_STEPS = 32


def with_earlier_choices(config: TrainConfig, earlier: TrainConfig) -> TrainConfig:
    """Returns the config with the choices of an earlier run in place of those that are left open."""
    left_open = {"dtype": "auto", "feed": "auto", "steps_per_call": 0}
    before = {name: getattr(earlier, name) for name, value in left_open.items() if getattr(config, name) == value}
    return dataclasses.replace(config, **before)


def choose_dtype(config: TrainConfig) -> TrainConfig:
    """Returns the config with a dtype that suits the device."""
    if config.dtype != "auto":
        return config
    return dataclasses.replace(config, dtype="float32" if jax.default_backend() == "cpu" else "bfloat16")


def choose_steps_per_call(config: TrainConfig, *, heads_alone: bool) -> TrainConfig:
    """Returns the config with a number of steps per call.

    Args:
      config: the config.
      heads_alone: whether the steps hold nothing but heads.
    """
    if config.steps_per_call:
        return config
    # XLA on CPU computes a convolution's weight gradient in a loop on one thread; matrix products it does not.
    steps = 1 if jax.default_backend() == "cpu" and not heads_alone else _SCAN_STEPS
    return dataclasses.replace(config, steps_per_call=steps)
