"""The configuration of a training run, and the recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.config.fields import (
        AugmentationConfig,
        BatchConfig,
        CheckpointConfig,
        DataConfig,
        ModelConfig,
        NumericsConfig,
        OptimizerConfig,
        PipelineConfig,
        ProcessConfig,
    )
    from facefeat_jax.config.recipes import list_recipes, load_recipe
    from facefeat_jax.config.smoke import apply_smoke
    from facefeat_jax.config.train_config import TrainConfig

_MODULES = {
    "facefeat_jax.config.fields": [
        "AugmentationConfig",
        "BatchConfig",
        "CheckpointConfig",
        "DataConfig",
        "ModelConfig",
        "NumericsConfig",
        "OptimizerConfig",
        "PipelineConfig",
        "ProcessConfig",
    ],
    "facefeat_jax.config.recipes": ["list_recipes", "load_recipe"],
    "facefeat_jax.config.smoke": ["apply_smoke"],
    "facefeat_jax.config.train_config": ["TrainConfig"],
}

__all__ = [
    "AugmentationConfig",
    "BatchConfig",
    "CheckpointConfig",
    "DataConfig",
    "ModelConfig",
    "NumericsConfig",
    "OptimizerConfig",
    "PipelineConfig",
    "ProcessConfig",
    "TrainConfig",
    "apply_smoke",
    "list_recipes",
    "load_recipe",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
