"""The description of a model: all that decides its answers, read from files that may say anything."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from facefeat_jax import Predictor
from facefeat_jax.commands import train
from facefeat_jax.prediction.crops import FRAMES, WHOLE
from facefeat_jax.runs import checkpoints
from facefeat_jax.runs.run_folder import open_run, read_config, write_config
from facefeat_jax.runs.spec import NUMERICS, ModelSpec
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.kinds import FrameName
from facefeat_jax.tasks import TASKS

CLASSES = {"gender": ("female", "male"), "mine": ("a", "b", "c")}
# One that differs from every default.
WHOLE_SPEC = ModelSpec(
    "vit_b_16",
    CLASSES,
    48,
    "as_notebook",
    "file.pth",
    mean=(0.5, 0.25, 0.125),
    std=(0.5, 0.25, 1.0),
    interpolation="bicubic",
    dtype="bfloat16",
    param_dtype="float64",
    matmul_precision="highest",
    made_for=384,
    frames={"gender": "head", "mine": "face"},
)


def test_every_field_comes_back_from_json() -> None:
    plain = ModelSpec("vit_b_16", CLASSES, 32, "upright", "random")
    for field in dataclasses.fields(ModelSpec):
        if field.name not in ("trunk", "classes"):
            assert getattr(WHOLE_SPEC, field.name) != getattr(plain, field.name), field.name
    assert ModelSpec.from_json(json.loads(json.dumps(WHOLE_SPEC.to_json())), where="") == WHOLE_SPEC


def test_what_is_left_open_is_filled_in_so_that_no_table_is_asked_later(monkeypatch) -> None:
    spec = ModelSpec("vit_b_16", CLASSES, 384, "upright", "vit_b_16_swag-9ac1b537")
    assert (spec.made_for, spec.frames) == (384, {"gender": "face", "mine": "whole"})
    values = spec.to_json()
    monkeypatch.setitem(TASKS, "gender", dataclasses.replace(TASKS["gender"], frame="head"))
    elsewhere = ModelSpec.from_json({**values, "weights": "renamed.pth"}, where="")
    assert elsewhere.frames["gender"] == "face"
    assert elsewhere.abstract().trunk.stem.positions.shape == (1, 577, 768)


def test_the_frames_are_those_that_crops_knows() -> None:
    assert set(get_args(FrameName)) == {*FRAMES, WHOLE}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trunk", "resnet19"),
        ("trunk", 3),
        ("classes", {}),
        ("classes", {"gender": "ab"}),
        ("classes", {"gender": ["a"]}),
        ("classes", {"gender": ["a", "a"]}),
        ("classes", {"gender": ["a", None]}),
        ("classes", [["a", "b"]]),
        ("image_size", 100_000),
        ("image_size", 0),
        ("image_size", True),
        ("image_size", "32"),
        ("image_size", 32.0),
        ("decode", "sideways"),
        ("decode", ["upright"]),
        ("weights", None),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("mean", [0.5, 0.5, 10**400]),
        ("mean", "abc"),
        ("std", [0.5, 0.0, 0.5]),
        ("std", [True, True, True]),
        ("interpolation", "nearest"),
        ("dtype", "float16"),
        ("dtype", "auto"),
        ("param_dtype", None),
        ("matmul_precision", "HIGHEST"),
        ("made_for", 17),
        ("made_for", -224),
        ("made_for", True),
        ("frames", {"shirt": "face"}),
        ("frames", {"gender": "elbow"}),
        ("frames", ["face"]),
        ("colour", "red"),
    ],
)
def test_a_description_that_no_model_can_have_is_refused_in_a_line(field, value) -> None:
    values = {**WHOLE_SPEC.to_json(), field: value}
    with pytest.raises(UserError, match=r"this file can't be read|can't be made for") as caught:
        ModelSpec.from_json(values, where="this file").abstract()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[], None, "resnet18", {}, {"trunk": "resnet18"}])
def test_what_is_no_description_is_refused(values) -> None:
    with pytest.raises(UserError, match="this file can't be read"):
        ModelSpec.from_json(values, where="this file")


@pytest.fixture(scope="module")
def bfloat16_run(tiny, once):
    return once("bfloat16", lambda folder: train(tiny(folder / "run", epochs=1, limit=8, dtype="bfloat16"))) / "run"


def test_a_checkpoint_says_how_its_model_computes_and_its_config_does_not(bfloat16_run, tmp_path) -> None:
    """The config is what the run was told; another one changes no answer."""
    edited = _copy(bfloat16_run, tmp_path / "edited")
    config = read_config(edited)
    assert config.numerics.dtype == "bfloat16"
    changed = {"dtype": "float32", "matmul_precision": "highest", "image_size": 8, "decode": "as_notebook"}
    write_config(edited, config.replace(**changed, trunk="resnet18"))
    assert open_run(edited).spec == open_run(bfloat16_run).spec
    pictures = [np.full((32, 32, 3), value, np.uint8) for value in (0, 100, 250)]
    before, after = (Predictor.from_run(run).predict(pictures) for run in (bfloat16_run, edited))
    assert before == after


def test_a_run_of_the_version_before_takes_its_number_formats_from_its_config(bfloat16_run, tmp_path) -> None:
    run = open_run(bfloat16_run)
    older = _copy(bfloat16_run, tmp_path / "older")
    item = older / checkpoints.FOLDER / str(run.step) / "about" / "metadata"
    written = json.loads(item.read_text())
    values = {name: written[name] for name in ("spec", "history", "seconds", "digests")}  # that version's
    for name in (*NUMERICS, "made_for", "frames"):
        del values["spec"][name]
    item.write_text(json.dumps(values))
    opened = open_run(older)
    assert opened.spec == run.spec and opened.spec.dtype == "bfloat16"
    assert opened.model.trunk.dtype == "bfloat16"


def _copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))
