"""torch and torchvision, where they are installed: to compare with, never to convert."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from facefeat_jax.system.errors import UserError

_KEPT: list[object] = []


def require_torch() -> None:
    """Raises UserError where torch or torchvision is not installed; the line says how to install them."""
    absent = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(
            f"{' and '.join(absent)} not installed: pip install 'facefeat-jax[compare]' (Python 3.11), or torch and "
            "torchvision of your own"
        )


def import_torchvision() -> Any:
    """Imports torchvision so that it also works beside a torch of another build, and returns it."""
    import torch

    try:
        torchvision = importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # A CPU build of torch can't load the compiled part of torchvision's CUDA wheel. Its models and transforms are
        # plain Python, but importing it registers variants of two detection operators, whose schemas must exist.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # the schemas vanish with it
        torchvision = importlib.import_module("torchvision")
    for part in ("models", "transforms"):
        importlib.import_module(f"torchvision.{part}")
    return torchvision
