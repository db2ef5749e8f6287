"""`convert` and `export`: torch files to run folders and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

import weights_conversion
from facefeat_jax import Predictor
from facefeat_jax.cli import main
from facefeat_jax.evaluation.evaluate import evaluate_run
from facefeat_jax.exporting.conversion import convert, export
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system.errors import UserError

pytestmark = pytest.mark.long


@pytest.fixture(scope="session")
def notebook_file(resnet18_run, tmp_path_factory):
    """A file as the notebook saves one: its names, and no word on classes."""
    path = tmp_path_factory.mktemp("notebook") / "model.pth"
    weights_conversion.write(path, weights_conversion.to_torch(open_run(resnet18_run).model))
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back_keeps_every_bit_and_the_class_names(resnet18_run, tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    export(resnet18_run, file)
    made = convert(file, tmp_path / "run")
    assert made.note == ""
    assert made.spec.classes == open_run(resnet18_run).spec.classes
    before = weights_conversion.to_torch(open_run(resnet18_run).model)
    after = weights_conversion.to_torch(open_run(tmp_path / "run").model)
    assert len(before) == 132
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_a_file_of_the_notebooks_gets_its_training_order_of_colours_and_that_is_said(notebook_file, tmp_path, capsys):
    assert main(["convert", str(notebook_file), "--to", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "white, pink, blue, black, red, yellow, green, brown" in said.err
    spec = open_run(tmp_path / "run").spec
    assert spec.classes["shirt"] == ("white", "pink", "blue", "black", "red", "yellow", "green", "brown")
    assert spec.decode == "as_notebook"
    assert spec.image_size == 224


def test_a_converted_run_is_evaluated_by_class_name_not_by_number(resnet18_run, notebook_file, avatars_dir, tmp_path):
    ours, colours = open_run(resnet18_run), ("white", "pink", "blue", "black", "red", "yellow", "green", "brown")
    tensors = weights_conversion.read(notebook_file)
    # The same head with its outputs in the notebook's order is the same classifier.
    order = [ours.spec.classes["shirt"].index(colour) for colour in colours]
    for part in ("weight", "bias"):
        tensors[f"shirt_head.2.{part}"] = tensors[f"shirt_head.2.{part}"][order]
    weights_conversion.write(tmp_path / "reordered.pth", tensors)
    for name in ("reordered.pth", "plain.pth"):
        source = tmp_path / name if name == "reordered.pth" else notebook_file
        convert(source, tmp_path / name.removesuffix(".pth"))
    right = evaluate_run(tmp_path / "reordered", sources=["avatars"], data_dir=avatars_dir, batch_size=10)
    wrong = evaluate_run(tmp_path / "plain", sources=["avatars"], data_dir=avatars_dir, batch_size=10)
    assert right["shirt"].n == wrong["shirt"].n == 20
    assert right["gender"] == wrong["gender"]
    assert right["shirt"].loss != wrong["shirt"].loss
    picture = np.zeros((8, 8, 3), np.uint8)
    shirt = [
        Predictor.from_run(tmp_path / name).predict([picture])[0].heads["shirt"] for name in ("reordered", "plain")
    ]
    assert list(shirt[0].probabilities.values()) != list(shirt[1].probabilities.values())
    assert sorted(shirt[0].probabilities.values()) == pytest.approx(sorted(shirt[1].probabilities.values()), abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"shirt": ("a", "b")}, "tells 8 classes apart, but 2 names"),
        ({"gender": ("a",)}, "tells 2 classes apart, but 1 names"),
        ({"shrit": ("a",)}, "Did you mean 'shirt'"),
    ],
)
def test_class_lists_that_do_not_fit_are_refused(notebook_file, tmp_path, classes, message):
    with pytest.raises(UserError, match=message):
        convert(notebook_file, tmp_path / "run", classes=classes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", ["gender=a,a", "gender=a,", "gender= ,b", "gender", "gender=a,b gender=c,d"])
def test_class_names_on_the_command_line_are_names(notebook_file, tmp_path, classes, capsys):
    command = ["convert", str(notebook_file), "--to", str(tmp_path / "run"), "--classes"]
    assert main([*command, *classes.split(" ")] if "gender=c" in classes else [*command, classes]) == 2
    assert "once per task" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_blanks_around_class_names_are_no_part_of_them(notebook_file, tmp_path):
    assert (
        main(["convert", str(notebook_file), "--to", str(tmp_path / "run"), "--classes", "gender= male ,\tfemale"]) == 0
    )
    assert open_run(tmp_path / "run").spec.classes["gender"] == ("male", "female")


def test_what_is_not_a_model_of_the_baselines_is_refused(notebook_file, tmp_path):
    tensors = weights_conversion.read(notebook_file)
    trunk = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    weights_conversion.write(tmp_path / "trunk.pth", trunk)
    with pytest.raises(UserError, match="has no heads"):
        convert(tmp_path / "trunk.pth", tmp_path / "run")
    tensors["backbone.conv1.weight"] = np.zeros((64, 1, 7, 7), np.float32)
    del tensors["backbone.bn1.weight"]
    weights_conversion.write(tmp_path / "other.pth", tensors)
    with pytest.raises(UserError, match=r"conv1.weight is \(64, 1, 7, 7\).*missing: backbone.bn1.weight"):
        convert(tmp_path / "other.pth", tmp_path / "run")
    tensors = weights_conversion.read(notebook_file)
    tensors["gender_head.0.bias"][3] = np.nan
    weights_conversion.write(tmp_path / "nan.pth", tensors)
    with pytest.raises(UserError, match=r"NaN or infinity in 'gender_head\.0\.bias'"):
        convert(tmp_path / "nan.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "carried",
    ["[" * 100_000, "[1]", '{"glasses": "ab"}', '{"glasses": ["a", "a"]}', '{"glasses": ["a", "\\u001b[2J"]}', "NaN"],
)
def test_class_names_that_are_none_are_refused(notebook_file, tmp_path, carried):
    """Nested without end, no lists, twice the same, or what would clear a terminal."""
    tensors = weights_conversion.read(notebook_file)
    weights_conversion.write(tmp_path / "w.safetensors", tensors, metadata={"facefeat_classes": carried})
    with pytest.raises(UserError, match=r"class names in .* can't be read") as caught:
        convert(tmp_path / "w.safetensors", tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_head_whose_name_is_no_name_is_refused(notebook_file, tmp_path):
    tensors = {
        name.replace("shirt_", "../\x1b_"): array for name, array in weights_conversion.read(notebook_file).items()
    }
    weights_conversion.write(tmp_path / "w.safetensors", tensors)
    with pytest.raises(UserError, match=r"has a head of the name '\.\./\\x1b'") as caught:
        convert(tmp_path / "w.safetensors", tmp_path / "run")
    assert str(caught.value).isprintable()


def test_a_folder_in_the_way_is_not_touched(notebook_file, tmp_path, resnet18_run):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        convert(notebook_file, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]


def test_the_commands_answer_in_json(resnet18_run, tmp_path, capsys):
    assert main(["export", str(resnet18_run), "--to", "torch", str(tmp_path / "m.pth"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"]["gender"] == ["female", "male"]
    assert main(["convert", str(tmp_path / "m.pth"), "--to", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == ""
    assert main(["export", str(resnet18_run), str(tmp_path / "m.bin")]) == 2
    assert ".safetensors" in capsys.readouterr().err
