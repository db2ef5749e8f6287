"""What dropout and stochastic depth drew in torch, recorded, and put in the place of what ours would draw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from facefeat_jax.models._dropout import Dropout

Masks = list[np.ndarray]
"""What a forward pass in training mode multiplied by, in the order of the layers: zeros, and factors above 1."""


def record_masks(model: Any) -> Masks:
    """Returns a list to which each layer of a torch module adds its mask whenever it drops something."""
    import torch

    masks: Masks = []

    def before(layer: Any, inputs: tuple[Any, ...]) -> None:
        layer.drawn_from = torch.get_rng_state()

    def after(layer: Any, inputs: tuple[Any, ...], outputs: Any) -> None:
        if layer.training and layer.p:
            now = torch.get_rng_state()
            torch.set_rng_state(layer.drawn_from)
            mask = type(layer).forward(layer, torch.ones_like(outputs.detach())).numpy()
            torch.set_rng_state(now)
            masks.append(mask if mask.ndim != 4 else mask[:, :1, :1, :1])  # of whole pictures

    for layer in torch_droppers(model):
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)
    return masks


def torch_droppers(model: Any) -> list[Any]:
    """Returns the layers of a torch module that drop something: Dropout and StochasticDepth."""
    return [layer for layer in model.modules() if isinstance(getattr(layer, "p", None), float)]


@contextlib.contextmanager
def replayed(masks: Sequence[ArrayLike]) -> Iterator[None]:
    """Makes our layers multiply by these masks, in order, in what is called (or traced) inside.

    Raises:
      RuntimeError: it was another number of masks.
    """
    left, own = list(masks), Dropout.__call__

    def multiply(layer: Dropout, inputs: Any, *, rngs: object = None) -> Any:
        return inputs if layer.deterministic or not layer.rate else inputs * left.pop(0)

    Dropout.__call__ = multiply  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Dropout.__call__ = own  # type: ignore[method-assign]
    if left:
        raise RuntimeError(f"{len(left)} masks were not used")
