"""What a plain installation leaves out, and what to install where something of it is asked for.

`pip install facefeat-jax` is enough for models and their weights. Predicting and training are extras.
"""

from __future__ import annotations

PREDICT = ("PIL",)
FACES = ("cv2",)
TRAIN = (
    "absl",
    "grain",
    "imagehash",
    "importlib_resources",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "optax",
    "orbax",
    "sklearn",
    "tensorboardX",
    "tensorflow_datasets",
)
"""The modules of each extra (of `train` in addition to those of `predict`); the packages are in pyproject.toml."""


def what_to_install(error: ImportError) -> str | None:
    """Returns one line for a module that is missing because its extra is not installed; None for any other."""
    module = (error.name or "").partition(".")[0]
    if module in FACES:
        return f"finding faces needs {module}, which is not installed; run: pip install 'facefeat-jax[predict,faces]'"
    if module not in PREDICT + TRAIN:
        return None
    less = " (to predict alone, 'facefeat-jax[predict]' is enough)" if module in PREDICT else ""
    return f"this needs {module}, which is not installed; run: pip install 'facefeat-jax[train]'{less}"
