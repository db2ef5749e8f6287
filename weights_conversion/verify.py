"""How near a trunk is to torchvision's: every stage, gradients, training steps. Needs torch and torchvision.

    python -m weights_conversion verify resnet50 [weights.pth]

torch's results in float64 are what everything is held against: JAX's in float64, which must be equal but for rounding,
and those of both in float32 and bfloat16, to see that JAX loses no more than torch itself does.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.published import named_weights
from facefeat_jax.models.registry import Architecture, get_architecture
from facefeat_jax.system.errors import UserError
from weights_conversion import _names as names
from weights_conversion import download, files
from weights_conversion._masks import Masks
from weights_conversion._records import COUNTER, Arrays, Difference, Record, differences
from weights_conversion._trunk_sides import jax_side, torch_side
from weights_conversion._with_torch import import_torchvision, require_torch
from weights_conversion.convert import position_size, recognise

TOLERANCE = 1e-9
_MAPS = ("evaluation", "training")


@dataclass(frozen=True)
class Row:
    """One line of the table: the largest difference of some numbers from torch's in float64, relative to the largest.

    Attributes:
      what: the numbers.
      differences: by column (`JAX float64`, `torch float32`, ...); a column that did not measure them has none.
    """

    what: str
    differences: dict[str, float]


def verify(
    name: str,
    weights: str | Path | None = None,
    *,
    image_size: int | None = None,
    batch_size: int = 8,
    training: bool = True,
    dtypes: Sequence[str] = ("float64", "float32", "bfloat16"),
    seed: int = 0,
    dropping: bool = False,
) -> list[Row]:
    """Compares a trunk with torchvision's model of that name.

    Args:
      name: one of `list_models()`.
      weights: a torchvision file (.pth or .safetensors), or the name of published weights, which are downloaded. None:
        torch's own random start, with every tensor moved away from its default.
      image_size: side of the made-up pictures; the default is 128 pixels. A Vision Transformer with weights takes the
        size that its positions are for.
      batch_size: how many of them.
      training: whether gradients and training steps are compared too; they take several times the memory.
      dtypes: to compute in; float64 comes first.
      seed: seed of weights, pictures and masks.
      dropping: whether dropout and stochastic depth are on: what torch draws is recorded and given to ours. Else their
        rates are 0. Then float64 alone is compared: torch draws other masks in other types.

    Returns:
      The rows of the table. Gradients and steps are not compared in bfloat16.

    Raises:
      UserError: no such model, weights that don't fit, or no torch.
    """
    architecture = get_architecture(name)
    require_torch()
    tensors = _tensors(architecture, weights, seed, image_size)
    # torchvision's Vision Transformers take no other pictures than those that their positions are for.
    size = (position_size(tensors) if architecture.fixed_size else image_size) or 128
    stream = np.random.RandomState(seed + 1)
    images = stream.standard_normal((batch_size, size, size, 3))
    options = _options(architecture, tensors)
    labels = stream.randint(0, options["num_classes"], batch_size)
    models = import_torchvision().models

    def recorded(side: str, dtype: str) -> Record:
        gc.collect()
        run, build = (
            (jax_side, partial(architecture.build, **options))
            if side == "JAX"
            else (torch_side, partial(getattr(models, name), weights=None, **options))
        )
        steps = training and dtype != "bfloat16"
        return run(build, tensors, images, labels, dtype=dtype, training=steps, masks=masks)

    masks: list[Masks] | None = None
    if dropping:
        import torch

        torch.manual_seed(seed)
        masks, dtypes = [], dtypes[:1]
    reference = recorded("torch", "float64")
    rows: dict[str, Row] = {}
    for dtype in dtypes:
        for side in ("JAX", "torch"):
            if (side, dtype) != ("torch", "float64"):
                # Of each side only the differences are kept: a large model's numbers are gigabytes.
                for found in _differences(recorded(side, dtype), reference):
                    rows.setdefault(found.kind, Row(found.kind, {})).differences[f"{side} {dtype}"] = found.largest
    return list(rows.values())


# ------------------------------------------------------------------------------------------------------------ the table


def _differences(ours: Record, theirs: Record) -> list[Difference]:
    """Returns the largest difference of each kind that ours has; of maps, of each stage."""

    def by_stage(record: Record) -> Record:
        values: dict[str, Arrays] = {}
        for kind in (kind for kind in theirs.values if kind in ours.values):
            arrays = record.values[kind]
            values |= {f"{kind}, {n}": {n: a} for n, a in arrays.items()} if kind in _MAPS else {kind: arrays}
        return Record(values)

    return differences(by_stage(ours), by_stage(theirs))


def largest(rows: Sequence[Row], column: str) -> float:
    """Returns the largest difference in a column."""
    return max(row.differences[column] for row in rows if column in row.differences)


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as text."""
    columns = list(rows[0].differences)
    width = max(len(row.what) for row in rows)
    lines = [" " * width + "".join(f"  {column:>14}" for column in columns)]
    for row in rows:
        cells = [f"{row.differences[column]:.1e}" if column in row.differences else "" for column in columns]
        lines.append(f"{row.what:{width}}" + "".join(f"  {cell:>14}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


# -------------------------------------------------------------------------------------------------------------- details


def _tensors(architecture: Architecture, weights: str | Path | None, seed: int, image_size: int | None) -> Arrays:
    if weights is None:
        return _random_tensors(architecture, seed, image_size)
    entry = named_weights(architecture.name, weights)
    path = download.fetch(entry.name) if entry is not None else Path(weights)
    tensors = names.canonical(files.read(path))
    if f"{_classifier(architecture)}bias" not in tensors:
        likely = recognise(tensors)
        looks = f"; it looks like {likely}" if likely and likely != architecture.name else ""
        raise UserError(f"{path} is not torchvision's file of a {architecture.name} with its classifier{looks}")
    return tensors


def _random_tensors(architecture: Architecture, seed: int, image_size: int | None) -> Arrays:
    """Returns torch's random start, with what starts as a constant moved away from it as training would."""
    import torch

    torch.manual_seed(seed)
    options = {"image_size": image_size} if architecture.fixed_size and image_size else {}
    model = getattr(import_torchvision().models, architecture.name)(weights=None, **options)
    stream, tensors = np.random.RandomState(seed), {}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy().astype(np.float64) if tensor.is_floating_point() else tensor.numpy()
        if name.endswith(COUNTER):
            array = np.array(stream.randint(1, 1000), np.int64)
        elif array.ndim == 1 and name.endswith(("weight", "running_var")):
            array = stream.uniform(0.5, 1.5, array.shape)
        elif array.ndim == 1:
            array = stream.standard_normal(array.shape) * 0.1
        elif not array.any():
            array = stream.standard_normal(array.shape) * 0.02
        tensors[name] = array
    return tensors


def _options(architecture: Architecture, tensors: Arrays) -> dict[str, Any]:
    """Returns what both sides' models are made with, so that a state dict fits."""
    options: dict[str, Any] = {"num_classes": tensors[f"{_classifier(architecture)}bias"].shape[0]}
    if architecture.fixed_size:
        options["image_size"] = position_size(tensors)
    return options


def _classifier(architecture: Architecture) -> str:
    return names.classifier_prefix(abstract(architecture.build, num_classes=1))
