"""Gender, glasses and shirt colour from pictures, in JAX and Flax NNX.

Names are loaded when first used: `import facefeat_jax` alone costs nothing, and `facefeat_jax.models` brings in jax and
flax only.
"""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.factory import create_classifier as create_classifier
    from facefeat_jax.factory import create_model as create_model
    from facefeat_jax.models.registry import add_architecture as add_architecture
    from facefeat_jax.models.registry import list_models as list_models
    from facefeat_jax.prediction.predictor import Predictor as Predictor
    from facefeat_jax.system.errors import UserError as UserError
    from facefeat_jax.tasks import Task as Task
    from facefeat_jax.tasks import add_task as add_task

__version__ = "0.1.0"

public_names.attach(__name__, "__version__")
