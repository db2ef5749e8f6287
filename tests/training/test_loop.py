"""The training run: what it writes, how it goes on after an interruption, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
from flax import nnx

import weights_conversion
from facefeat_jax.commands import train
from facefeat_jax.evaluation.metrics import head_result
from facefeat_jax.factory import create_model
from facefeat_jax.reporting import _publish
from facefeat_jax.runs import run_folder
from facefeat_jax.runs.checkpoints import Checkpoints
from facefeat_jax.runs.logs import read_lines
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system import progress
from facefeat_jax.system.errors import Interrupted, UserError

from ..made import weights

pytestmark = pytest.mark.long

KIT = {"rand_augment": 9, "mixup": 0.4, "cutmix": 1.0, "layer_decay": 0.7, "unfreeze_every": 2}
# Of what is random, averaged or balanced, all at once.
EVERYTHING = {
    **KIT,
    "flip": True,
    "crop": 0.2,
    "colour_jitter": 0.3,
    "erase": 0.5,
    "weight_decay": 0.1,
    "ema": 0.8,
    "label_smoothing": 0.1,
    "balance": 0.5,
    "learning_rate_schedule": "cosine",
    "warmup_steps": 2,
}
# Every checkpoint is kept, so that the history of each can be looked at.
SEQUENTIAL = {"schedule": "sequential", "tasks": ("glasses", "shirt"), "keep_checkpoints": 9}
# The same in one epoch of programs that compile in no time. Bars count reading (three times), then six steps and three
# batches of validation in each of two passes.
HEADS = {"trainable": ("none",), "batch_norm": "frozen", "cache_prefix": True, "feed": "device", "steps_per_call": 1}
HEADS = {**SEQUENTIAL, **HEADS, "epochs": 1}
STEPS = 2 * 6  # epochs times batches: 44 pictures by 8, the last batch a short one


def test_writes_the_run_folder_of_the_contract(trained_run):
    results = json.loads((trained_run / "results.json").read_text())
    assert list(results["heads"]) == ["gender", "glasses", "shirt"]
    for figures in results["heads"].values():
        assert 0 <= figures["accuracy"] <= 1
        assert figures["loss"] > 0
        assert figures["n"] == 20
    assert [(entry["epoch"], entry["task"]) for entry in results["history"]] == [
        (epoch, task) for epoch in (1, 2) for task in ("gender", "glasses", "shirt")
    ]
    assert json.loads((trained_run / "config.json").read_text())["batch_size"] == 8
    assert (trained_run / "report.html").stat().st_size > 10_000
    assert (trained_run / "curves.png").stat().st_size > 10_000
    assert open_run(trained_run).spec.classes["gender"] == ("female", "male")
    assert open_run(trained_run).step == STEPS


def test_logs_every_step_once(trained_run):
    lines = read_lines(trained_run / "metrics.jsonl")
    train_lines = [line for line in lines if line["event"] == "train"]
    assert [line["step"] for line in train_lines] == list(range(1, STEPS + 1))
    assert set(train_lines[0]["tasks"]) == {"gender", "glasses", "shirt"}
    assert list((trained_run / "tensorboard").glob("events.*"))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("fields", "stop_at"),
    [
        (EVERYTHING, 8),
        (SEQUENTIAL, 23),
        (HEADS, 17),  # just before the last step
        (HEADS, 20),
        (HEADS, 11),  # a validation that ends no epoch
        pytest.param({**EVERYTHING, "steps_per_call": 3}, 6, marks=pytest.mark.slow),
        pytest.param({**KIT, **SEQUENTIAL}, 14, marks=pytest.mark.slow),
        pytest.param({**KIT, "batch_norm": "frozen", "trainable": ("layer2", "layer4")}, 8, marks=pytest.mark.slow),
    ],
    ids=[
        *("mixed", "sequential", "last step", "within the last validation", "within the first"),
        *("three steps a call", "the kit, sequential", "the kit, some stages"),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_weights(tiny, once, tmp_path, monkeypatch, fields, stop_at):
    uninterrupted = once(f"whole-{'-'.join(fields)}", lambda folder: train(tiny(folder / "run", **fields))) / "run"
    whole = json.loads((uninterrupted / "results.json").read_text())
    config = tiny(tmp_path / "stopped", **fields)

    seen = 0
    advance = progress.Bar.advance

    def stop_once(bar, pictures):
        nonlocal seen
        seen += 1
        if seen == stop_at:
            signal.raise_signal(signal.SIGTERM)
        advance(bar, pictures)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Bar, "advance", stop_once)
        with pytest.raises(Interrupted, match="--resume") as stopped:
            train(config)
    assert stopped.value.exit_code == 143
    resumed = train(config.replace(resume=True))

    expected, found = weights(uninterrupted), weights(tmp_path / "stopped")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert resumed["heads"] == whole["heads"]
    assert resumed["history"] == whole["history"]
    # What `--keep-best` and `--checkpoint best` go by.
    store = Checkpoints(tmp_path / "stopped", read_only=True)
    assert store.about(store.steps()[0])["history"] == whole["history"]
    assert all(
        store.about(step)["history"] == [e for e in whole["history"] if e["step"] <= step] for step in store.steps()
    )
    store.close()

    def logged(run):
        return [line for line in read_lines(run / "metrics.jsonl") if line["event"] != "pass"]

    assert logged(tmp_path / "stopped") == logged(uninterrupted)


def test_damaged_lines_of_a_log_are_left_out_and_that_is_said(trained_run, tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    good = (trained_run / "metrics.jsonl").read_bytes()
    whole = read_lines(trained_run / "metrics.jsonl")
    for number, bad in enumerate((b'"stop"', b'"step": 1e999, "step"', b'"step": "1", "stap"', b'\xff"step"')):
        path.write_bytes(good.replace(b'"step"', bad, 1))
        assert read_lines(path) == whole[1:], number
        assert "1 of its lines" in capsys.readouterr().err
    path.write_bytes(good + b'{"event": "tra')  # cut: the process that wrote it was killed
    assert read_lines(path) == whole
    assert not capsys.readouterr().err


def test_sequential_validates_after_each_own_pass_and_again_at_the_end(tiny, tmp_path):
    """A checkpoint that is due where a pass ends is written after its validation."""
    results = train(tiny(tmp_path, schedule="sequential", checkpoint_every=6, keep_checkpoints=9, epochs=1))
    assert [entry["task"] for entry in results["history"]] == ["gender", "glasses", "shirt"]
    assert [entry["step"] for entry in results["history"]] == [6, 12, 18]
    last = {entry["task"]: entry for entry in results["history"]}
    # The trunk moved on after gender's own pass, but not after shirt's.
    assert results["heads"]["gender"]["loss"] != last["gender"]["loss"]
    assert results["heads"]["shirt"]["loss"] == last["shirt"]["loss"]
    store = Checkpoints(tmp_path, read_only=True)
    assert store.steps() == [18, 12, 6]
    assert store.about(6)["history"] == results["history"][:1]
    store.close()


def test_a_frozen_trunk_stands_still_and_its_statistics_move_as_the_mode_says(tiny, tmp_path):
    config = tiny(tmp_path / "start")
    start = weights_conversion.to_torch(create_model(config.model.trunk, rngs=nnx.Rngs(config.seed)))
    batch = train_and_weights(tiny(tmp_path / "batch", trainable=("none",), epochs=1))
    frozen = train_and_weights(tiny(tmp_path / "frozen", trainable=("none",), epochs=1, batch_norm="frozen"))
    for name in start:
        if not name.startswith("backbone."):
            continue
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        np.testing.assert_array_equal(frozen[name], start[name], err_msg=name)
        assert np.array_equal(batch[name], start[name]) != is_statistic, name


def train_and_weights(config):
    train(config)
    return weights(config.run)


def test_a_run_in_the_way_is_not_touched(tiny, tmp_path, trained_run):
    before = sorted((path, path.stat().st_mtime_ns) for path in trained_run.rglob("*"))
    with pytest.raises(UserError, match="already holds a run"):
        train(tiny(trained_run))
    with pytest.raises(UserError, match="these differ: batch_size"):
        train(tiny(trained_run, batch_size=4, resume=True))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="something that is not a run"):
        train(tiny(tmp_path / "other"))
    with pytest.raises(UserError, match="not a run"):
        train(tiny(tmp_path / "other", overwrite=True))
    (tmp_path / "other" / "config.json").write_text('{"name": "another program"}')
    with pytest.raises(UserError, match="not the config of a run"):
        train(tiny(tmp_path / "other", overwrite=True))
    with pytest.raises(UserError, match="is a file"):
        train(tiny(tmp_path / "other" / "precious.txt"))
    with pytest.raises(UserError, match="no run folder"):
        train(tiny(tmp_path / "absent", resume=True))
    assert (tmp_path / "other" / "precious.txt").read_text() == "mine"
    assert before == sorted((path, path.stat().st_mtime_ns) for path in trained_run.rglob("*"))


def test_the_second_of_two_runs_in_one_folder_is_refused(tiny, tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "run")
    with run_folder.owned(tmp_path / "run"):
        before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
        for fields in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match=r"another process .*run; wait"):
                train(tiny(tmp_path / "run", **fields))
        assert before == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))


def test_the_folder_is_held_until_its_pages_are_written(tiny, tmp_path, monkeypatch):
    """Another training would delete what the pages are made of, and they would lie in its folder."""
    run, seen = tmp_path / "run", []

    def publish(*_, **options):
        monkeypatch.setattr(_publish, "publish_training", lambda *_, **__: None)
        before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
        with pytest.raises(UserError, match="another process is training in"):
            train(tiny(run, overwrite=True, epochs=1, limit=8))
        assert before == sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
        seen.append(options["step"])

    monkeypatch.setattr(_publish, "publish_training", publish)
    results = train(tiny(run, epochs=1, limit=8))
    assert seen == [results["steps"]] and (run / run_folder.CURVES).is_file()
    with run_folder.owned(run):  # it is free again
        pass


def test_what_a_run_did_not_write_is_not_overwritten(trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run_folder.clear(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.json", "notes.txt"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": ("fairface",)}, "facefeat prepare fairface"),
        ({"sources": ("fairfase",)}, "Did you mean 'fairface'"),
        ({"tasks": ("gendre",)}, "Did you mean 'gender'"),
        ({"trunk": "resnet81"}, "Did you mean 'resnet18'"),
        ({"weights": "absent.pth"}, "absent.pth"),
        ({"trainable": ("layer5",)}, "unknown stage of the trunk 'layer5'"),
        ({"trainable": ("all", "layer4")}, "stands alone"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_anything_is_written(tiny, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        train(tiny(tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "--batch-size must be 1 or more"),
        ({"learning_rate": float("nan")}, "--learning-rate must be positive"),
        ({"seed": -1}, "--seed must be 0 or more"),
        ({"schedule": "mixd"}, "Did you mean 'mixed'"),
        ({"tasks": ()}, "--tasks must name"),
        ({"resume": True, "overwrite": True}, "give only one of them"),
    ],
)
def test_the_config_refuses_values_that_make_no_sense(tiny, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        tiny(tmp_path / "run", **fields)


def test_what_is_published_is_of_the_average_where_one_is_kept(tiny, tmp_path, monkeypatch):
    """Calibration, report and model card are of the weights that the results are of, and that the checkpoint holds."""
    published = {}
    monkeypatch.setattr(_publish, "publish_training", lambda *_, **options: published.update(options))
    heads = {"trainable": ("none",), "batch_norm": "frozen", "cache_prefix": True, "feed": "device"}
    results = train(tiny(tmp_path / "run", ema=0.9, **heads))
    labels = published["validation"].labels["shirt"]
    found = head_result(published["logits"]["shirt"], labels, batch_size=8)
    assert found.loss == pytest.approx(results["heads"]["shirt"]["loss"], rel=1e-6)
    expected, model = weights(tmp_path / "run"), weights_conversion.to_torch(published["explainer"].model)
    for name, value in expected.items():
        np.testing.assert_array_equal(model[name], value, err_msg=name)
