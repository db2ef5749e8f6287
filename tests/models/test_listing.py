"""What the listing says was counted."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import pytest

from facefeat_jax import UserError, create_model
from facefeat_jax.cli import main
from facefeat_jax.models import registry
from facefeat_jax.models._listing import COUNTS, count, describe
from facefeat_jax.models.registry import ARCHITECTURES, Architecture, add_architecture
from facefeat_jax.models.resnet import ResNet

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


def test_a_trunk_that_was_added_is_listed_without_published_weights(capsys) -> None:
    """As docs/add_a_trunk.md teaches it; also where another trunk has its name already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", dict(registry.ARCHITECTURES))
        mine = Architecture("mine", partial(ResNet, (1, 1, 1, 1), width=8), 64, ResNet.STAGES, ResNet.LAST, "tests")
        assert add_architecture(mine) is add_architecture(mine) is mine
        with pytest.raises(UserError, match="'resnet18' already"):
            add_architecture(dataclasses.replace(mine, name="resnet18"))
        assert main(["models"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mine ")]
        assert line.split()[-3:] == ["224", "none", "published"]
        assert main(["models", "mine"]) == 0
        assert "no weights are published" in capsys.readouterr().out
        assert main(["models", "mine", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["weights"] == []
        with pytest.raises(UserError, match="no published weights for mine"):
            create_model("mine", tasks=["glasses"], weights="imagenet")
