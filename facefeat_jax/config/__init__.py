"""The configuration of a training run, and the recipes."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.config.fields import AugmentationConfig as AugmentationConfig
    from facefeat_jax.config.fields import BatchConfig as BatchConfig
    from facefeat_jax.config.fields import CheckpointConfig as CheckpointConfig
    from facefeat_jax.config.fields import DataConfig as DataConfig
    from facefeat_jax.config.fields import ModelConfig as ModelConfig
    from facefeat_jax.config.fields import NumericsConfig as NumericsConfig
    from facefeat_jax.config.fields import OptimizerConfig as OptimizerConfig
    from facefeat_jax.config.fields import PipelineConfig as PipelineConfig
    from facefeat_jax.config.fields import ProcessConfig as ProcessConfig
    from facefeat_jax.config.recipes import list_recipes as list_recipes
    from facefeat_jax.config.recipes import load_recipe as load_recipe
    from facefeat_jax.config.smoke import apply_smoke as apply_smoke
    from facefeat_jax.config.train_config import TrainConfig as TrainConfig

public_names.attach(__name__)
