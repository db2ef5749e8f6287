"""timm's names of the layers that torchvision's models have too, turned into torchvision's.

A ResNet's are the same. What an architecture is called tells whether it computes what ours does: tensors alone don't
(a `tf_efficientnet` pads in another way, a `resnetblur` blurs, and their names and shapes fit).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from facefeat_jax.system.errors import UserError

_BLOCK = r"encoder.layers.encoder_layer_\1."
_VIT = (
    (r"cls_token", "class_token"),
    (r"pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj\.(\w+)", r"conv_proj.\1"),
    (r"blocks\.(\d+)\.norm(\d)\.(\w+)", _BLOCK + r"ln_\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", _BLOCK + r"self_attention.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", _BLOCK + r"self_attention.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", _BLOCK + r"mlp.0.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", _BLOCK + r"mlp.3.\2"),
    (r"norm\.(\w+)", r"encoder.ln.\1"),
    (r"head\.(\w+)", r"heads.head.\1"),
)
# Stages are numbered from 0; torchvision numbers them and what is between them through.
_CONVNEXT = (
    (r"stem\.(\d)\.(\w+)", r"features.0.\1.\2"),
    (r"stages\.(\d)\.downsample\.(\d)\.(\w+)", r"features.{2n}.\2.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.gamma", r"features.{2n+1}.\2.layer_scale"),
    (r"stages\.(\d)\.blocks\.(\d+)\.conv_dw\.(\w+)", r"features.{2n+1}.\2.block.0.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.norm\.(\w+)", r"features.{2n+1}.\2.block.2.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"features.{2n+1}.\2.block.3.\3"),
    (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"features.{2n+1}.\2.block.5.\3"),
    (r"head\.norm\.(\w+)", r"classifier.0.\1"),
    (r"head\.fc\.(\w+)", r"classifier.2.\1"),
)
# The first stage has no expansion, so that all its layers move up by one.
_EFFICIENTNET = (
    (r"conv_stem\.(\w+)", r"features.0.0.\1"),
    (r"bn1\.(\w+)", r"features.0.1.\1"),
    (r"blocks\.0\.(\d+)\.conv_dw\.(\w+)", r"features.1.\1.block.0.0.\2"),
    (r"blocks\.0\.(\d+)\.bn1\.(\w+)", r"features.1.\1.block.0.1.\2"),
    (r"blocks\.0\.(\d+)\.se\.conv_reduce\.(\w+)", r"features.1.\1.block.1.fc1.\2"),
    (r"blocks\.0\.(\d+)\.se\.conv_expand\.(\w+)", r"features.1.\1.block.1.fc2.\2"),
    (r"blocks\.0\.(\d+)\.conv_pw\.(\w+)", r"features.1.\1.block.2.0.\2"),
    (r"blocks\.0\.(\d+)\.bn2\.(\w+)", r"features.1.\1.block.2.1.\2"),
    (r"blocks\.(\d)\.(\d+)\.conv_pw\.(\w+)", r"features.{n+1}.\2.block.0.0.\3"),
    (r"blocks\.(\d)\.(\d+)\.bn1\.(\w+)", r"features.{n+1}.\2.block.0.1.\3"),
    (r"blocks\.(\d)\.(\d+)\.conv_dw\.(\w+)", r"features.{n+1}.\2.block.1.0.\3"),
    (r"blocks\.(\d)\.(\d+)\.bn2\.(\w+)", r"features.{n+1}.\2.block.1.1.\3"),
    (r"blocks\.(\d)\.(\d+)\.se\.conv_reduce\.(\w+)", r"features.{n+1}.\2.block.2.fc1.\3"),
    (r"blocks\.(\d)\.(\d+)\.se\.conv_expand\.(\w+)", r"features.{n+1}.\2.block.2.fc2.\3"),
    (r"blocks\.(\d)\.(\d+)\.conv_pwl\.(\w+)", r"features.{n+1}.\2.block.3.0.\3"),
    (r"blocks\.(\d)\.(\d+)\.bn3\.(\w+)", r"features.{n+1}.\2.block.3.1.\3"),
    (r"conv_head\.(\w+)", r"features.8.0.\1"),
    (r"bn2\.(\w+)", r"features.8.1.\1"),
    (r"classifier\.(\w+)", r"classifier.1.\1"),
)
# The first three stages of a V2 are of fused blocks.
_EFFICIENTNET_V2 = (
    (r"blocks\.0\.(\d+)\.conv\.(\w+)", r"features.1.\1.block.0.0.\2"),
    (r"blocks\.([12])\.(\d+)\.conv_exp\.(\w+)", r"features.{n+1}.\2.block.0.0.\3"),
    (r"blocks\.([12])\.(\d+)\.conv_pwl\.(\w+)", r"features.{n+1}.\2.block.1.0.\3"),
    *_EFFICIENTNET,
)
# The small one has a stage less.
_EFFICIENTNET_V2_S = tuple((one, other.replace("features.8.", "features.7.")) for one, other in _EFFICIENTNET_V2)
# What tells a family: a tensor that only timm calls so.
_FAMILIES = {
    "patch_embed.proj.weight": _VIT,
    "stages.0.blocks.0.conv_dw.weight": _CONVNEXT,
    "blocks.0.0.conv_dw.weight": _EFFICIENTNET,
    "blocks.0.0.conv.weight": _EFFICIENTNET_V2,
}
# timm's architectures that compute what ours do.
_SAME = re.compile(
    r"resnet\d+[cdst]?|resnext\d+d?_\d+x\d+d|wide_resnet\d+_\d|efficientnet_b\d|efficientnetv2_[sml]"
    r"|(vit|deit)_[a-z]+_patch\d+_\d+|convnext_(tiny|small|base|large|xlarge)"
)


def require_same(architecture: str, source: str) -> None:
    """Raises UserError where one of timm's architectures (`resnet18`, without what follows a dot) is none of ours."""
    if "tf_efficientnet" in architecture:
        raise UserError(f"{source}: these EfficientNets pad in another way than ours; take one without tf_ in its name")
    if not _SAME.fullmatch(architecture):
        raise UserError(
            f"{source}: timm's {architecture} computes something else than the trunks here; take a resnet, resnext, "
            "wide_resnet, efficientnet, vit, deit or convnext of timm's, without another prefix or suffix"
        )


def are_timms_efficientnet(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are an EfficientNet's tensors under timm's names."""
    return "blocks.0.0.conv_dw.weight" in state_dict or "blocks.0.0.conv.weight" in state_dict


def from_timm(state_dict: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns a state dict of timm's under torchvision's names; any other as it is."""
    rules = next((rules for name, rules in _FAMILIES.items() if name in state_dict), None)
    if rules is None:
        return state_dict
    if rules is _EFFICIENTNET_V2 and "blocks.6.0.bn1.weight" not in state_dict:
        rules = _EFFICIENTNET_V2_S
    return {_renamed(name, rules): _in_shape(name, tensor) for name, tensor in state_dict.items()}


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, template in rules:
        if match := re.fullmatch(pattern, name):
            number = int(match[1]) if "{" in template else 0
            for formula, value in (("{2n}", 2 * number), ("{2n+1}", 2 * number + 1), ("{n+1}", number + 1)):
                template = template.replace(formula, str(value))
            return match.expand(template)
    return name


def _in_shape(name: str, tensor: np.ndarray) -> np.ndarray:
    """Returns a ConvNeXt's factors as torchvision has them, `[features, 1, 1]`."""
    return tensor.reshape(-1, 1, 1) if name.endswith(".gamma") else tensor
