"""The registry as people read it: what `facefeat models` prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.counting import count_multiply_adds, count_parameters
from facefeat_jax.models.registry import Architecture

_IMAGENET_CLASSES = 1000

COUNTS = Path(__file__).with_name("counts.json")
"""What `count` gave for each architecture here. scripts/lab/count_trunks.py writes it."""


def count(architecture: Architecture) -> dict[str, int]:
    """Counts an architecture's parameters, features and multiply-adds; about a second.

    Returns:
      `parameters` of the trunk alone; `parameters_with_classifier` and `multiply_adds` with ImageNet's 1,000 classes,
      for one picture of `image_size` pixels, as publications state them; `features`, the width of what is pooled.
    """
    trunk = abstract(architecture.build_for, "imagenet", num_classes=_IMAGENET_CLASSES)
    assert trunk.fc is not None
    parameters = count_parameters(trunk)
    return {
        "parameters": parameters - count_parameters(trunk.fc),
        "parameters_with_classifier": parameters,
        "multiply_adds": count_multiply_adds(trunk, architecture.image_size),
        "features": trunk.num_features,
    }


def describe(architecture: Architecture) -> dict[str, Any]:
    """Returns everything about an architecture as JSON values; what `count` gives is among it."""
    counted = json.loads(COUNTS.read_text(encoding="utf-8")).get(architecture.name)
    return {
        "name": architecture.name,
        "paper": architecture.paper,
        **(counted or count(architecture)),
        "image_size": architecture.image_size,
        "stages": list(architecture.stages),
        "last": list(architecture.last),
        "weights": [
            {**dataclasses.asdict(entry), "url": entry.url, "default": entry is architecture.published[0]}
            for entry in architecture.published
        ],
    }


def overview(described: list[dict[str, Any]]) -> str:
    """Returns a line for each architecture, with the weights that `--weights imagenet` means."""
    rows = [("name", "parameters", "multiply-adds", "features", "pixels", "top-1", "weights")]
    for model in described:
        default = model["weights"][0] if model["weights"] else None
        rows.append(
            (
                model["name"],
                f"{model['parameters'] / 1e6:.1f} M",
                f"{model['multiply_adds'] / 1e9:.2f} G",
                str(model["features"]),
                str(model["image_size"]),
                f"{default['top1']:.2f} %" if default else "",
                default["name"] if default else "none published",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = range(1, len(widths) - 1)
    lines = [
        "  ".join(
            cell.rjust(width) if n in right else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            "",
            "Parameters without the classifier; multiply-adds with it, for one picture of that many pixels. Top-1 on "
            "ImageNet-1k as published.",
            "`facefeat models NAME` describes a trunk: its stages, all its weights, their licences and preprocessing.",
        ]
    )


def details(model: dict[str, Any]) -> str:
    """Returns all about one architecture as text."""
    lines = [
        f"{model['name']} ({model['paper']})",
        f"  {model['parameters']:,} parameters, {model['parameters_with_classifier']:,} with ImageNet's classifier",
        f"  {model['multiply_adds']:,} multiply-adds for {model['image_size']} x {model['image_size']} pixels",
        f"  {model['features']} pooled features",
        f"  stages: {' '.join(model['stages'])}",
        f"  last block (`--trainable last`): {' '.join(model['last'])}",
    ]
    if not model["weights"]:
        lines.append("  no weights are published for it: --weights random, or a file")
    for entry in model["weights"]:
        size = f"{entry['size']:,} bytes" if entry["size"] else f"{entry['mebibytes']} MiB"
        digest = entry["sha256"] or f"{entry['name'].rpartition('-')[2]}... (the digits that torchvision publishes)"
        lines += [
            f"  weights {entry['name']}" + (" (--weights imagenet)" if entry["default"] else ""),
            f"    {entry['enum']}, top-1 {entry['top1']} %; {entry['origin']}",
            f"    {entry['url']}, {size}",
            f"    SHA-256 {digest}",
            f"    {entry['licence']}",
            f"    shorter side to {entry['resize']} pixels ({entry['interpolation']}), middle {entry['image_size']} x "
            f"{entry['image_size']}, mean {entry['mean']}, deviation {entry['std']}",
        ]
    return "\n".join(lines)
