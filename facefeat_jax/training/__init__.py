"""The training step, its ingredients, and the loop."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.training.augment import augmented as augmented
    from facefeat_jax.training.data import RunData as RunData
    from facefeat_jax.training.data import open_data as open_data
    from facefeat_jax.training.launch import Hosts as Hosts
    from facefeat_jax.training.loop import Trained as Trained
    from facefeat_jax.training.loop import train as train
    from facefeat_jax.training.mixing import Mixed as Mixed
    from facefeat_jax.training.mixing import mixed as mixed
    from facefeat_jax.training.rand_augment import rand_augmented as rand_augmented
    from facefeat_jax.training.steps import StepOptions as StepOptions
    from facefeat_jax.training.steps import TrainState as TrainState
    from facefeat_jax.training.steps import create_state as create_state
    from facefeat_jax.training.steps import make_step as make_step
    from facefeat_jax.training.steps import make_train_step as make_train_step

public_names.attach(__name__)
