"""A run of any family of trunks can be gone on with, without the weights that it began with."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from facefeat_jax.commands import train
from facefeat_jax.factory import create_model
from facefeat_jax.models import published
from facefeat_jax.runs.run_folder import open_run
from weights_conversion import to_torch, write

pytestmark = pytest.mark.long


@pytest.mark.parametrize("family", ["resnet", pytest.param("efficientnet", marks=pytest.mark.slow), "vit"])
def test_a_run_goes_on_from_the_models_own_description(family, tiny, tiny_trunks, tmp_path, monkeypatch) -> None:
    """A Vision Transformer's file for larger pictures has more positions than its usual size."""
    trunk = tiny_trunks[family]
    entry = dataclasses.replace(
        published.WEIGHTS["vit_b_16_swag-9ac1b537"], name=f"{trunk}-00000000", architecture=trunk, image_size=64
    )
    monkeypatch.setitem(published.WEIGHTS, entry.name, entry)
    file = tmp_path / f"{entry.name}.safetensors"
    size = {"image_size": 64} if family == "vit" else {}
    write(file, to_torch(create_model(trunk, tasks=["glasses"], **size).trunk))
    fields = {"tasks": ("glasses",), "trainable": ("none",), "epochs": 1, "limit": 8}
    config = tiny(tmp_path / "run", trunk=trunk, weights=str(file), **fields)
    before = train(config)
    file.unlink()
    monkeypatch.delitem(published.WEIGHTS, entry.name)  # nor is the table asked again
    after = train(config.replace(resume=True))
    assert after["heads"] == before["heads"]
    opened = open_run(tmp_path / "run")
    if family == "vit":
        assert opened.spec.made_for == 64 and opened.model.trunk.stem.positions.shape == (1, 65, 24)
    assert (opened.spec.interpolation, opened.spec.weights) == ("bicubic", str(file))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == before["steps"]
    assert all(np.isfinite(array).all() for array in to_torch(opened.model).values())
