"""Labels of parameters, for `optax.multi_transform`: layer-wise learning rates, frozen stages, no weight decay.

Layers and labels are those of timm's `param_groups_layer_decay`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from flax import nnx

from facefeat_jax.models.freezing import trained_modules
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.trunk import Trunk

FROZEN = "frozen"
# By name and not by shape alone: in an ensemble a bias has two axes, and positions always have.
_NO_DECAY = {"bias", "scale", "class_token", "positions", "layer_scale"}


class ParameterGroup(NamedTuple):
    """What a label stands for.

    Attributes:
      layer: number of the layer; the classifier or the heads have the highest. None if it is frozen.
      lr_scale: what the learning rate is multiplied by; 0 if it is frozen.
      decays: whether it has weight decay.
    """

    layer: int | None
    lr_scale: float
    decays: bool


def parameter_labels(
    model: MultiTaskModel | Trunk, params: Any = None, *, trainable: str | Iterable[str] = "all", coarse: bool = False
) -> Any:
    """Returns the label of each parameter: `layer_3_decay`, `layer_3_no_decay`, or `frozen`.

    The stem is layer 0, each block is one more, and the classifier or the heads are the last. What stands between two
    stages is in the layer of the block after it. What follows the last block (a normalisation, the last convolution of
    an EfficientNet) is in the layer of that block; timm has ConvNeXt's last normalisation with the classifier. Biases,
    normalisations, ConvNeXt's layer scale, class tokens and positions have no weight decay.

    Args:
      model: a trunk of any family, or a multi-task model; it may be abstract.
      params: its parameters as a tree of arrays or shapes, or a part of it; the default is `nnx.state(model,
        nnx.Param)`.
      trainable: names of the stages that are trained, or `all`, or `none`, or `last` (the trunk's last block).
      coarse: number stages instead of blocks.

    Returns:
      A tree like `params`.

    Raises:
      UserError: the trunk has no such stage.
    """
    trunk, inside = (model.trunk, ("trunk",)) if isinstance(model, MultiTaskModel) else (model, ())
    names = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    trained = trained_modules(trunk.STAGES, names, trunk.LAST)
    layers = layer_numbers(trunk, coarse=coarse)
    last = max(layers.values()) + 1

    def label(path: tuple[Any, ...], value: Any) -> str:
        place = tuple(entry.key for entry in path)
        place = place[len(inside) :] if place[: len(inside)] == inside else ()
        found = [layers[place[:depth]] for depth in (1, 2) if place[:depth] in layers]
        if found and place[0] not in trained:
            return FROZEN
        return f"layer_{found[0] if found else last}_{'decay' if decays(path, value) else 'no_decay'}"

    params = nnx.state(model, nnx.Param) if params is None else params
    # One label for each variable: `nnx.Optimizer` gives optax variables first and then arrays.
    return jax.tree_util.tree_map_with_path(label, params, is_leaf=lambda value: isinstance(value, nnx.Variable))


def parameter_groups(labels: Any, *, layer_decay: float = 1.0) -> dict[str, ParameterGroup]:
    """Returns what the labels of `parameter_labels` stand for, each once.

    Args:
      labels: the tree.
      layer_decay: the learning rate of a layer is that of the next one times this (0.75 is usual).
    """
    layers: dict[str, int | None] = {}
    for label in sorted(set(jax.tree.leaves(labels))):
        layers[label] = None if label == FROZEN else int(label.split("_")[1])
    last = max((layer for layer in layers.values() if layer is not None), default=0)
    return {
        label: ParameterGroup(None, 0.0, False)
        if layer is None
        else ParameterGroup(layer, layer_decay ** (last - layer), not label.endswith("no_decay"))
        for label, layer in layers.items()
    }


def layer_numbers(trunk: Trunk, *, coarse: bool = False) -> dict[tuple[str | int, ...], int]:
    """Returns the layer of each module of the trunk, or of each block of a list: `{("layer1", 0): 1, ...}`."""
    numbers: dict[tuple[str | int, ...], int] = {}
    layer = -1
    for stage, modules in trunk.STAGES.items():
        layer += stage not in trunk.LAST[1:]
        for name in modules:
            module = getattr(trunk, name)
            if coarse or not isinstance(module, nnx.List):
                numbers[(name,)] = layer
            else:
                numbers.update({(name, index): layer + index for index in range(len(module))})
                layer += max(len(module) - 1, 0)
    return numbers


def decays(path: tuple[Any, ...], value: Any) -> bool:
    """Returns whether the parameter at a place of a tree has weight decay."""
    name = path[-1].key
    return name == "kernel" or (len(value.shape) > 1 and name not in _NO_DECAY)
