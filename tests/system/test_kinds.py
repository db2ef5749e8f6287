"""What callers and files give for a field: a lone name is not a list of letters, and true is no number."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.config import TrainConfig
from facefeat_jax.data.examples import open_examples
from facefeat_jax.evaluation.assessment import assess_run
from facefeat_jax.evaluation.evaluate import evaluate_run
from facefeat_jax.exporting.conversion import convert, export
from facefeat_jax.runs.run_folder import open_run, read_config, write_config
from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import Task


def test_a_lone_name_is_not_taken_for_its_letters(trained_run, avatars_dir, tmp_path):
    classes = {"gender": ("female", "male")}
    calls = {
        "--sources takes a list of names": lambda: TrainConfig().replace(sources="avatars"),
        "--tasks takes a list of names": lambda: TrainConfig().replace(tasks="gender"),
        "--trainable takes a list of names": lambda: TrainConfig().replace(trainable="all"),
        "task 'gender' takes a list of names": lambda: Task("gender", "male"),
        "sources takes a list of names": lambda: open_examples("avatars", "val", avatars_dir, classes),
        "disjoint takes a list of names": lambda: open_examples(["avatars"], "val", avatars_dir, classes, disjoint="a"),
    }
    for message, call in calls.items():
        with pytest.raises(UserError, match=message):
            call()
    export(trained_run, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="the classes of gender takes a list of names, got the text 'male'"):
        convert(tmp_path / "a.safetensors", tmp_path / "run", classes={"gender": "male"})
    for function in (assess_run, evaluate_run):
        with pytest.raises(UserError, match="sources takes a list of names, got the text 'avatars'"):
            function(trained_run, sources="avatars", data_dir=avatars_dir)


def test_one_head_may_be_named_alone(trained_run):
    model = open_run(trained_run).model
    assert list(jax.eval_shape(lambda: model(jnp.zeros((1, 32, 32, 3)), tasks="shirt"))) == ["shirt"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": "64"}, "--image-size takes a whole number, got '64'"),
        ({"image_size": 100_000}, "--image-size must be 4096 or less"),
        ({"image_size": True}, "--image-size takes a whole number, got True"),
        ({"epochs": 1.5}, "--epochs takes a whole number"),
        ({"flip": 1}, "--flip takes true or false"),
        ({"learning_rate": "fast"}, "--learning-rate takes a number"),
        ({"learning_rate": float("inf")}, "--learning-rate must be positive"),
        ({"limit": "9"}, "--limit takes a whole number"),
        ({"tasks": ("gender", 3)}, "--tasks takes a list of names"),
        ({"data_dir": 3}, "--data-dir takes a path"),
        ({"weights": None}, "--weights takes a text"),
        ({"decode": 3}, "unknown value of --decode '3'"),
    ],
)
def test_a_config_takes_values_of_its_kinds_only(fields, message):
    with pytest.raises(UserError, match=message):
        TrainConfig().replace(**fields)


def test_numbers_of_numpy_texts_for_paths_and_lists_will_do(tmp_path):
    values = {"image_size": np.int64(32), "learning_rate": np.float32(0.5), "run": "runs/x", "weights": Path("a.pth")}
    config = TrainConfig().replace(**values, trainable=["last"])
    assert (config.run, config.model.weights, config.model.trainable) == (Path("runs/x"), "a.pth", ("last",))
    assert (type(config.data.image_size), type(config.optimizer.learning_rate)) == (int, float)
    # Also in the next process, which reads the file.
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    assert kinds.fault(None, int | None) is None


def test_a_config_that_was_changed_is_refused_but_for_where_things_lie(trained_run, tmp_path, avatars_dir):
    config = read_config(trained_run)
    path = write_config(tmp_path, config)
    text = path.read_text()
    path.write_text(text.replace(str(avatars_dir), "/elsewhere").replace(str(trained_run), "/moved"))
    assert (read_config(tmp_path).data.data_dir, read_config(tmp_path).run) == (Path("/elsewhere"), Path("/moved"))
    assert text != path.read_text()
    for bad in (text.replace('"seed": 0', '"seed": 1'), "[" * 200_000, text.replace("0.001", "1e999"), text[:-9]):
        path.write_text(bad)
        with pytest.raises(UserError, match=r"config\.json can't be read.*only run and data_dir may be edited"):
            read_config(tmp_path)
