"""What the listing says was counted."""

from __future__ import annotations

import json

import pytest

from facefeat_jax.models.listing import COUNTS, count, describe
from facefeat_jax.models.registry import ARCHITECTURES

MODELS = list(ARCHITECTURES)  # now: other tests add one
SMALLEST = ("resnet18", "efficientnet_b0", "vit_b_32")


@pytest.mark.parametrize(
    "name", [name if name in SMALLEST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_the_counts_kept_are_those_of_the_models(name: str) -> None:
    """Where it fails, a trunk was changed: run scripts/lab/count_trunks.py."""
    counted = count(ARCHITECTURES[name])
    assert json.loads(COUNTS.read_text())[name] == counted
    assert counted.items() <= describe(ARCHITECTURES[name]).items()


def test_every_trunk_is_kept() -> None:
    assert list(json.loads(COUNTS.read_text())) == MODELS
