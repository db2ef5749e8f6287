"""`export`, then `convert`: the run that comes back gives the same answers, to the last digit, in another process too.

What decides an answer is listed by the machine: every field that is read while a picture is predicted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import weights_conversion
from facefeat_jax import Predictor
from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.config import NumericsConfig, TrainConfig, load_recipe
from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration
from facefeat_jax.exporting.conversion import convert
from facefeat_jax.runs._about import EXPORTED
from facefeat_jax.runs.run_folder import create_from_weights, open_run
from facefeat_jax.runs.spec import NUMERICS, ModelSpec
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.runtime import set_numerics

pytestmark = pytest.mark.long

CLASSES = {"glasses": ("no_glasses", "glasses"), "gender": ("female", "male"), "mine": ("a", "b", "c")}
CALIBRATION = {
    "glasses": HeadCalibration(1.7, 0.8, n=40),
    "gender": HeadCalibration(0.6, None, error_rate=0.1, never_sure=True, notes=("few pictures",)),
    "mine": HeadCalibration(2.5, 0.5, n=3),
}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, tiny_trunks):
    """Returns a function that makes a run whose every field differs from what a file without one is taken for."""

    def run(family: str = "resnet", **fields) -> Path:
        others = {"mean": (0.4, 0.5, 0.6), "std": (0.3, 0.2, 0.25), "interpolation": "bicubic"}
        frames = {"gender": "head", "mine": "face"}
        fields = {"image_size": 40, "decode": "upright", **others, "frames": frames, **fields}
        if family == "vit":
            fields["made_for"] = 48
        spec = ModelSpec(tiny_trunks[family], CLASSES, weights="random", **fields)
        set_numerics(spec.dtype, spec.param_dtype, spec.matmul_precision)
        config = load_recipe("avatars").replace(run=tmp_path / "run")
        model, stream = spec.abstract(), np.random.RandomState(3)
        # Filled, not drawn: each initialiser would be a program of its own.
        for _, node in nnx.iter_graph(model):
            if isinstance(node, nnx.Variable) and jnp.issubdtype(node.dtype, jnp.floating):
                node.set_value(jnp.asarray(stream.uniform(0.1, 0.4, node.shape) - 0.2 * (node.ndim > 1), node.dtype))
            elif isinstance(node, nnx.Variable):
                node.set_value(jnp.zeros(node.shape, node.dtype))
        create_from_weights(tmp_path / "run", spec, model, config, Calibration(0, CALIBRATION).write)
        return tmp_path / "run"

    yield run
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_default_matmul_precision", None)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    """A drawn person, the same turned by EXIF, and half transparent: the policies decode them differently."""
    folder, picture = tmp_path_factory.mktemp("pictures"), draw(5, 1).image
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "plain.png")
    picture.save(folder / "turned.jpg", exif=exif)
    picture.putalpha(90)
    picture.save(folder / "clear.png")
    return [str(folder / name) for name in ("plain.png", "turned.jpg", "clear.png")]


def predicted(run: Path, pictures: list[str], capsys) -> str:
    capsys.readouterr()
    assert main(["predict", str(run), *pictures, "--format", "jsonl"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("family", "suffix", "fields"),
    [
        ("resnet", ".safetensors", {"decode": "as_notebook", "image_size": 24}),
        ("vit", ".safetensors", {"dtype": "bfloat16", "matmul_precision": "highest"}),
        ("efficientnet", ".pth", {"dtype": "float64", "param_dtype": "float64", "image_size": 24}),
        pytest.param("resnet", ".pth", {}, marks=pytest.mark.slow),
        pytest.param("efficientnet", ".safetensors", {"decode": "as_notebook"}, marks=pytest.mark.slow),
        pytest.param("vit", ".pth", {}, marks=pytest.mark.slow),
        pytest.param("resnet", ".pth", {"dtype": "bfloat16", "param_dtype": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param("resnet", ".safetensors", {"dtype": "float64", "param_dtype": "float64"}, marks=pytest.mark.slow),
    ],
)
def test_what_is_taken_back_answers_the_same(make: Make, family, suffix, fields, pictures, tmp_path, capsys) -> None:
    run, file = make(family, **fields), tmp_path / f"model{suffix}"
    assert main(["export", str(run), "--to", "torch", str(file)]) == 0
    assert main(["convert", str(file), "--to", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().err == ""
    before = predicted(run, pictures, capsys)
    assert predicted(tmp_path / "again", pictures, capsys) == before
    assert '"unsure": true' in before
    assert open_run(tmp_path / "again").spec == open_run(run).spec
    made = [Predictor.from_run(folder) for folder in (run, tmp_path / "again")]
    assert made[0].fingerprint() == made[1].fingerprint()


def test_all_that_is_read_at_prediction_is_in_the_file(make: Make, pictures, tmp_path, monkeypatch) -> None:
    run, file = make(), tmp_path / "model.pth"
    assert main(["export", str(run), str(file)]) == 0
    carried = json.loads(weights_conversion.read_metadata(file)[EXPORTED])
    kinds = (ModelSpec, HeadCalibration, Calibration, TrainConfig, NumericsConfig)
    read: dict[type, set[str]] = {kind: set() for kind in kinds}
    with monkeypatch.context() as patch:
        for kind, names in read.items():
            fields = {field.name for field in dataclasses.fields(kind)}

            def watched(self, name, names=names, fields=fields):
                if name in fields:
                    names.add(name)
                return object.__getattribute__(self, name)

            if kind in (TrainConfig, NumericsConfig):
                # Its own checks read all of it.
                patch.setattr(kind, "__post_init__", lambda self: None)
            patch.setattr(kind, "__getattribute__", watched)
        Predictor.from_run(run).predict(pictures)
    assert {"mean", "std", "decode", "interpolation", "dtype", "made_for", "trunk"} <= read[ModelSpec]
    assert {"temperature", "threshold"} <= read[HeadCalibration]
    assert read[ModelSpec] <= carried["spec"].keys() == {field.name for field in dataclasses.fields(ModelSpec)}
    assert all(read[HeadCalibration] <= head.keys() for head in carried["calibration"].values())
    assert carried["calibration"].keys() == CLASSES.keys()
    # The config stands in for what checkpoints of versions before did not say, and decides nothing else.
    assert read[TrainConfig] == {"numerics"}
    assert read[NumericsConfig] == set(NUMERICS)


@pytest.mark.parametrize("size", [24, 40])
def test_options_go_before_what_the_file_says_and_that_is_said(make: Make, size, tmp_path, capsys) -> None:
    assert main(["export", str(make()), str(tmp_path / "m.pth")]) == 0
    run = tmp_path / "again"
    told = ["--image-size", str(size), "--classes", "gender= f , m"]
    assert main(["convert", str(tmp_path / "m.pth"), "--to", str(run), *told]) == 0
    opened = open_run(run)
    assert opened.spec.image_size == size and opened.spec.classes["gender"] == ("f", "m")
    calibrated = Calibration.read(run, step=0) is not None
    assert calibrated == (size == 40) == ("image_size 24 instead of 40" not in capsys.readouterr().err)


def _lies() -> dict[str, Callable[[dict], object]]:
    spec = {
        "another size": {"image_size": 100_000},
        "a size that is true": {"image_size": True},
        "no such trunk": {"trunk": "resnet19"},
        "another trunk": {"trunk": "resnet18"},
        "a deviation of nothing": {"std": [0.0, 0.2, 0.2]},
        "a policy": {"decode": "sideways"},
        "a type": {"dtype": "float16"},
        "other heads": {"classes": {"gender": ["a", "b"], "hat": ["a", "b"], "mine": ["a", "b", "c"]}, "frames": {}},
        "a class more": {"classes": {**{k: list(v) for k, v in CLASSES.items()}, "gender": ["a", "b", "c"]}},
        "a class that clears the terminal": {"classes": {"gender": ["a", "\x1b[2J"]}},
        "a class twice": {"classes": {"gender": ["a", "a"]}},
        "a frame": {"frames": {"gender": "elbow"}},
        "more than there is": {"colour": 3},
        "origin": {"weights": "a\nb"},
    }
    lies: dict[str, Callable[[dict], object]] = {
        name: (lambda content, change=change: content["spec"].update(change)) for name, change in spec.items()
    }
    head = {
        "a temperature of true": ("temperature", True),
        "a temperature of 0": ("temperature", 0),
        "a threshold of 2": ("threshold", 2),
        "a threshold of text": ("threshold", "0.5"),
        "pictures less than none": ("n", -1),
        "notes": ("notes", "one"),
        "a field of its own": ("colour", 3),
    }
    for name, (field, value) in head.items():
        lies[name] = lambda content, field=field, value=value: content["calibration"]["gender"].update({field: value})
    lies["a calibration of another head"] = lambda content: content["calibration"].update(
        hat=content["calibration"]["gender"]
    )
    lies["no model"] = lambda content: content.pop("spec")
    lies["a field less"] = lambda content: content["spec"].pop("dtype")
    return lies


def test_a_description_that_lies_is_refused_in_a_line(make: Make, tmp_path) -> None:
    file = tmp_path / "m.safetensors"
    assert main(["export", str(make()), str(file)]) == 0
    tensors, metadata = weights_conversion.read(file), weights_conversion.read_metadata(file)

    def refusal(text: str) -> str:
        weights_conversion.write(tmp_path / "lie.safetensors", tensors, metadata={**metadata, EXPORTED: text})
        with pytest.raises(UserError) as caught:
            convert(tmp_path / "lie.safetensors", tmp_path / "again")
        assert not (tmp_path / "again").exists()
        assert "\n" not in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 1500
        return str(caught.value)

    for name, lie in _lies().items():
        content = checked_json.checked(json.loads(metadata[EXPORTED])).content
        lie(content)
        assert refusal(json.dumps(checked_json.with_digest(content))), name
    for text in ("", "[" * 100_000, "null", "{}", "x" * (1 << 20), metadata[EXPORTED].replace("0.4", "0.5")):
        assert "can't be read" in refusal(text)


def test_of_a_file_without_a_description_all_that_is_assumed_is_said(resnet18_run, tmp_path, capsys) -> None:
    tensors = weights_conversion.to_torch(open_run(resnet18_run).model)
    weights_conversion.write(tmp_path / "m.pth", tensors)
    assert main(["convert", str(tmp_path / "m.pth"), "--to", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.splitlines()
    for word in (
        "224 pixels",
        "as_notebook",
        "ImageNet's mean",
        "for gender;",
        "for glasses;",
        "for shirt;",
    ):
        assert sum(word in line for line in said) == 1, word
    given = ["--image-size", "32", "--decode", "upright", "--json"]
    assert main(["convert", str(tmp_path / "m.pth"), "--to", str(tmp_path / "given"), *given]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert not any("--image-size" in note or "--decode" in note for note in notes)
    spec = open_run(tmp_path / "given").spec
    assert (spec.image_size, spec.decode, spec.trunk) == (32, "upright", "resnet18")


def test_the_trunk_is_recognised_and_its_positions_say_the_size(tmp_path) -> None:
    classes = {"glasses": ("no", "yes")}
    for trunk, size in (("resnet34", None), ("efficientnet_b0", None), ("vit_b_32", 384), ("vit_b_16", 224)):
        spec = ModelSpec(trunk, classes, 64, "upright", "random", made_for=size)
        shapes = weights_conversion.convert.torch_shapes(spec.abstract())
        tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
        assert weights_conversion.recognise(tensors) == trunk
        assert weights_conversion.position_size(tensors) == size
        if trunk == "efficientnet_b0":
            weights_conversion.write(tmp_path / "m.safetensors", tensors)
    made = convert(tmp_path / "m.safetensors", tmp_path / "run")
    assert (made.spec.trunk, made.spec.image_size) == ("efficientnet_b0", 224)
    with pytest.raises(UserError, match="It looks like efficientnet_b0"):
        convert(tmp_path / "m.safetensors", tmp_path / "wrong", trunk="resnet18")
