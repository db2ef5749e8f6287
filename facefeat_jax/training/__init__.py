"""The training step, its ingredients, and the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.training.augment import augmented
    from facefeat_jax.training.data import RunData, open_data
    from facefeat_jax.training.launch import Hosts
    from facefeat_jax.training.loop import Trained, train
    from facefeat_jax.training.steps import StepOptions, TrainState, create_state, make_step, make_train_step

_MODULES = {
    "facefeat_jax.training.augment": ["augmented"],
    "facefeat_jax.training.data": ["RunData", "open_data"],
    "facefeat_jax.training.launch": ["Hosts"],
    "facefeat_jax.training.loop": ["Trained", "train"],
    "facefeat_jax.training.steps": ["StepOptions", "TrainState", "create_state", "make_step", "make_train_step"],
}

__all__ = [
    "Hosts",
    "RunData",
    "StepOptions",
    "TrainState",
    "Trained",
    "augmented",
    "create_state",
    "make_step",
    "make_train_step",
    "open_data",
    "train",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
