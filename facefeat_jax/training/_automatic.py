"""What a config leaves to be chosen, and what an interrupted run has chosen before."""

from __future__ import annotations

import dataclasses

import jax

from facefeat_jax.config import NumericsConfig, PipelineConfig, TrainConfig

_SCAN_STEPS = 32


def with_earlier_choices(config: TrainConfig, earlier: TrainConfig) -> TrainConfig:
    """Returns the config with the choices of an earlier run in place of those that are left open."""
    left_open = {"dtype": "auto", "feed": "auto", "steps_per_call": 0}
    now, before = config.flat(), earlier.flat()
    return config.replace(**{name: before[name] for name, value in left_open.items() if now[name] == value})


def choose_dtype(numerics: NumericsConfig) -> NumericsConfig:
    """Returns the number formats with a dtype that suits the device."""
    if numerics.dtype != "auto":
        return numerics
    return dataclasses.replace(numerics, dtype="float32" if jax.default_backend() == "cpu" else "bfloat16")


def choose_steps_per_call(pipeline: PipelineConfig, *, heads_alone: bool) -> PipelineConfig:
    """Returns the pipeline with a number of steps per call.

    Args:
      pipeline: the pipeline of the config.
      heads_alone: whether the steps hold nothing but heads.
    """
    if pipeline.steps_per_call:
        return pipeline
    # XLA on CPU computes a convolution's weight gradient in a loop on one thread; matrix products it does not.
    steps = 1 if jax.default_backend() == "cpu" and not heads_alone else _SCAN_STEPS
    return dataclasses.replace(pipeline, steps_per_call=steps)
