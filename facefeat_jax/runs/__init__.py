"""A run's folder: config, model description, checkpoints, logs, the identity of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.runs.checkpoints import Checkpoints, DamagedError
    from facefeat_jax.runs.data_record import DataRecord
    from facefeat_jax.runs.logs import read_metrics
    from facefeat_jax.runs.run_config import read_config
    from facefeat_jax.runs.run_folder import Run, open_run
    from facefeat_jax.runs.spec import ModelSpec
    from facefeat_jax.runs.unseen import open_unseen

_MODULES = {
    "facefeat_jax.runs.checkpoints": ["Checkpoints", "DamagedError"],
    "facefeat_jax.runs.data_record": ["DataRecord"],
    "facefeat_jax.runs.logs": ["read_metrics"],
    "facefeat_jax.runs.run_config": ["read_config"],
    "facefeat_jax.runs.run_folder": ["Run", "open_run"],
    "facefeat_jax.runs.spec": ["ModelSpec"],
    "facefeat_jax.runs.unseen": ["open_unseen"],
}

__all__ = [
    "Checkpoints",
    "DamagedError",
    "DataRecord",
    "ModelSpec",
    "Run",
    "open_run",
    "open_unseen",
    "read_config",
    "read_metrics",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
