"""A run's folder: config, model description, checkpoints, logs, the identity of its data."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.runs.checkpoints import Checkpoints as Checkpoints
    from facefeat_jax.runs.checkpoints import DamagedError as DamagedError
    from facefeat_jax.runs.data_record import DataRecord as DataRecord
    from facefeat_jax.runs.logs import read_metrics as read_metrics
    from facefeat_jax.runs.run_config import read_config as read_config
    from facefeat_jax.runs.run_folder import Run as Run
    from facefeat_jax.runs.run_folder import open_run as open_run
    from facefeat_jax.runs.spec import ModelSpec as ModelSpec
    from facefeat_jax.runs.unseen import open_unseen as open_unseen

public_names.attach(__name__)
