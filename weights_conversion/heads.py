"""The notebook's model as others have built and saved it: its heads, and what tools leave beside the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from facefeat_jax.system.progress import say

_HEAD = re.compile(r"(\w+)_head\.(\d+)\.(weight|bias)")
_OF_PROFILERS = re.compile(r"(.*\.)?total_(ops|params)")


def as_notebooks(tensors: Mapping[str, np.ndarray], *, note: Callable[[str], object] = say) -> dict[str, np.ndarray]:
    """Returns a state dict as the notebook's model would have it, where that gives the same answers.

    What profilers leave (`total_ops`, `total_params`) is left out. Heads of two linear layers are numbered 0 and 2,
    also where a Dropout between them has moved the second. A head of two outputs and a softmax gets a single output:
    the second row less the first.

    Args:
      tensors: names as the file has them.
      note: called with a line for each change.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not _OF_PROFILERS.fullmatch(name)}
    if len(kept) < len(tensors):
        note(f"{len(tensors) - len(kept)} entries of a profiler (total_ops, total_params) are left out")
    moved: dict[str, str] = {}
    for task, layers in _layers(kept).items():
        numbers = sorted(layers)
        if len(numbers) == 2 and numbers != [0, 2]:
            for number, wanted in zip(numbers, (0, 2), strict=True):
                for part in layers[number]:
                    moved[f"{task}_head.{number}.{part}"] = f"{task}_head.{wanted}.{part}"
            note(
                f"the linear layers of the {task} head are its parts {numbers[0]} and {numbers[1]} (Dropout, which "
                "does nothing at prediction, moves them): taken as 0 and 2, with a ReLU between them"
            )
    result = {moved.get(name, name): tensor for name, tensor in kept.items()}
    for task in _layers(result):
        parts = [f"{task}_head.2.{part}" for part in ("weight", "bias")]
        found = [result[part] for part in parts if part in result]
        if len(found) == 2 and [array.ndim for array in found] == [2, 1] and {len(array) for array in found} == {2}:
            for part in parts:
                wide = result[part].astype(np.float64)
                result[part] = (wide[1:] - wide[:1]).astype(result[part].dtype)
            note(f"the {task} head has two outputs: folded into one, the second less the first")
    return result


def _layers(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[int, list[str]]]:
    """Returns, by head, the parts of each linear layer (its weight has two axes)."""
    heads: dict[str, dict[int, list[str]]] = {}
    for name in tensors:
        if match := _HEAD.fullmatch(name):
            task, number, part = match.groups()
            heads.setdefault(task, {}).setdefault(int(number), []).append(part)
    return {
        task: layers
        for task, layers in heads.items()
        if all(np.ndim(tensors.get(f"{task}_head.{number}.weight", 0)) == 2 for number in layers)
    }


CAUSES = (
    (re.compile(r"\.parametrizations\."), "torch's parametrizations: call parametrize.remove_parametrizations first"),
    (re.compile(r"_(orig|mask)$"), "pruned by torch: call prune.remove first"),
    (re.compile(r"\.weight_[gv]$"), "weight normalisation: call remove_weight_norm first"),
    (re.compile(r"(^|\.)total_(ops|params)$"), "a profiler's (thop): delete them"),
    (re.compile(r"_head\.(weight|bias)$"), "heads of one linear layer, where the notebook's have two with a ReLU"),
    (re.compile(r"_head\.\d+\.(running_mean|running_var)$"), "batch normalisation inside a head"),
    (re.compile(r"_head\.[013-9]+\d*\.(weight|bias)$"), "heads of other layers than Linear, ReLU, Linear"),
    (re.compile(r"^blocks\.0\.\d+\.conv_exp\."), "timm's efficientnetv2_rw or the like, another network than ours"),
    (re.compile(r"lora_|adapter"), "an adapter: merge it into the weights first"),
)
"""What names that a model has no place for come from, and what to do."""


def cause_of(names: list[str]) -> str:
    """Returns what names that a model has no place for come from, or an empty text."""
    return next((cause for pattern, cause in CAUSES if any(map(pattern.search, names))), "")
