"""The examples run on tiny data, learn what can be learned, and are short enough to be copied."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

import weights_conversion

from .conftest import ROOT

pytestmark = pytest.mark.long

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes that differ in colour: twelve pictures each of noise, mostly red or mostly blue."""
    root, stream = tmp_path_factory.mktemp("examples") / "pictures", np.random.RandomState(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (root / name).mkdir(parents=True)
        for number in range(12):
            picture = stream.randint(0, 120, (40, 48, 3))
            picture[..., channel] += 120
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


SMALL = ["--weights", "random", "--image-size", "32"]


def test_nearest_neighbours_tell_colours_apart(folder, capsys):
    # Random features suffice for colours; shuffled labels would give one half.
    assert load("features_knn").main([str(folder), *SMALL, "--neighbours", "1"]) >= 0.8
    assert capsys.readouterr().out.startswith("blue, red: accuracy ")


def test_fine_tuning_learns_them(folder, tmp_path, capsys):
    from facefeat_jax.exporting.conversion import convert

    out = tmp_path / "model.safetensors"
    losses = load("fine_tune").main([str(folder), *SMALL, "--epochs", "3", "--batch-size", "12", "--out", str(out)])
    assert losses[-1] < 0.5 * losses[0]
    assert weights_conversion.read(out)["mine_head.2.weight"].shape == (1, 256)
    assert "convert it with" in capsys.readouterr().out
    assert convert(out, tmp_path / "run", classes={"mine": ("blue", "red")}).spec.classes == {"mine": ("blue", "red")}


def test_the_pyramids_levels(capsys):
    shapes = load("multi_scale_head").main(["--weights", "random", "--image-size", "64"])
    assert shapes == {"layer4": (2, 2, 2, 3), "layer3": (2, 4, 4, 3), "layer2": (2, 8, 8, 3)}
    before, after = capsys.readouterr().out.rpartition("loss ")[2].split(", after one step ")
    assert float(after) < float(before)


def test_they_are_short_and_named():
    listed = (ROOT / "examples" / "README.md").read_text()
    assert len(EXAMPLES) == 3
    for example in EXAMPLES:
        assert len(example.read_text().splitlines()) < 80, example
        assert f"({example.name})" in listed
