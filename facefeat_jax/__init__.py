"""Gender, glasses and shirt colour from pictures, in JAX and Flax NNX.

Names are loaded when first used: `import facefeat_jax` alone costs nothing, and `facefeat_jax.models` brings in jax and
flax only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.factory import create_model
    from facefeat_jax.models.registry import add_architecture, list_models
    from facefeat_jax.prediction.predictor import Predictor
    from facefeat_jax.system.errors import UserError
    from facefeat_jax.tasks import Task, add_task

__version__ = "0.1.0"

_MODULES = {
    "facefeat_jax.factory": ["create_model"],
    "facefeat_jax.models.registry": ["add_architecture", "list_models"],
    "facefeat_jax.prediction.predictor": ["Predictor"],
    "facefeat_jax.system.errors": ["UserError"],
    "facefeat_jax.tasks": ["Task", "add_task"],
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

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
