"""Gender, glasses and shirt colour from pictures, in JAX and Flax NNX.

Names are loaded when first used: `import facefeat_jax` alone costs nothing, and `facefeat_jax.models` brings in jax and
flax only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Predictor": "facefeat_jax.prediction.predictor",
    "Task": "facefeat_jax.tasks",
    "UserError": "facefeat_jax.system.errors",
    "add_architecture": "facefeat_jax.models.registry",
    "add_task": "facefeat_jax.tasks",
    "create_model": "facefeat_jax.factory",
    "list_models": "facefeat_jax.models.registry",
}

__all__ = [
    "Predictor",
    "Task",
    "UserError",
    "__version__",
    "add_architecture",
    "add_task",
    "create_model",
    "list_models",
]

if TYPE_CHECKING:
    from facefeat_jax.factory import create_model
    from facefeat_jax.models.registry import add_architecture, list_models
    from facefeat_jax.prediction.predictor import Predictor
    from facefeat_jax.system.errors import UserError
    from facefeat_jax.tasks import Task, add_task


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        try:
            return getattr(importlib.import_module(_EXPORTS[name]), name)
        except ModuleNotFoundError as error:
            from facefeat_jax.system.extras import what_to_install

            if advice := what_to_install(error):
                raise ModuleNotFoundError(advice, name=error.name) from error
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
