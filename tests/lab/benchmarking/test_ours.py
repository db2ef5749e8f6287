"""Our operations on tiny pictures, the count of operations, and the command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from facefeat_jax.benchmarking.flops import forward_flops, step_flops
from facefeat_jax.benchmarking.ours import OPERATIONS
from facefeat_jax.cli import main
from facefeat_jax.config import TrainConfig
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.run_folder import write_json
from facefeat_jax.spec import ModelSpec
from facefeat_jax.tasks import TASKS

ALL = tuple(module for stage in ResNet.STAGES.values() for module in stage)
HEAD = 2 * (512 * 256 + 256)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return ModelSpec("resnet18", {n: t.classes for n, t in TASKS.items()}, 224, "as_notebook", "random")


def test_the_count_is_resnet18s(spec):
    """1.814 billion multiply-adds, as published for torchvision's without its classifier (1.8145 with)."""
    assert forward_flops(spec, ("gender",)) == 2 * 1_813_561_344 + HEAD


def test_gradients_cost_once_more_for_each_operand_they_reach(spec):
    forward, stem, head = forward_flops(spec, ("gender",)), 2 * 118_013_952, HEAD
    # With heads alone, the first layer's inputs need no gradient: 2 x 256 operations once more, its weights all.
    heads_only = step_flops(spec, ("gender",), ())
    assert heads_only == forward + head + 2 * 256
    # All trained: each product three times, but that no gradient goes into the pictures.
    assert step_flops(spec, ("gender",), ALL) == 3 * forward - stem
    # layer4 (411 million multiply-adds): its weights; its inputs but those of its first convolution and its shortcut.
    conv, first, shortcut = 2 * 115_605_504, 2 * 57_802_752, 2 * 6_422_528
    layer4 = 3 * conv + first + shortcut
    assert step_flops(spec, ("gender",), ("layer4",)) == forward + layer4 + 3 * conv + 2 * head
    # From layer3's outputs on: the same without what lies before.
    from_cache = step_flops(spec, ("gender",), ("layer4",), after="layer3")
    assert from_cache == 2 * layer4 + 3 * conv + 3 * head


@pytest.fixture
def avatar_settings(avatars_dir, tmp_path) -> dict:
    return {
        "data_dir": str(avatars_dir),
        "sources": ["avatars"],
        "image_size": 32,
        "batch": 8,
        "task": "gender",
        "precision": "float32",
        "trainable": "none",
        "round_seconds": 0.01,
        "work": str(tmp_path / "work"),
    }


@pytest.mark.parametrize(
    ("fields", "feed"),
    [({"packed": "on", "feed": "stream"}, "stream"), ({"packed": "off", "feed": "device"}, "device")],
)
def test_feed_counts_the_pictures_that_it_takes(avatar_settings, fields, feed, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path))
    measured = OPERATIONS["feed"](avatar_settings | {"batches": 8, "fields": fields})
    assert measured.about["feed"] == feed
    for _ in range(2):
        figures = measured.round()
        # Each of the two tasks' passes has 44 pictures in five batches of 8 and one of 4.
        assert figures["images"] == 44 + 2 * 8 and figures["seconds"] > 0


def test_feed_memory_is_this_processes(avatar_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path))
    measured = OPERATIONS["feed_memory"](avatar_settings | {"batches": 12})
    assert 50 * 2**20 < measured.round()["feed_anonymous_bytes"] < 20 * 2**30


def test_steps_and_validation_are_measured(avatar_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path))
    for name in ("step", "validation"):
        # The step from the last stage's outputs on: the program for the whole trunk takes long to compile.
        measured = OPERATIONS[name](avatar_settings | {"after": "layer4", "batch_norm": "frozen"})
        figures = measured.round()
        assert figures["images"] == (20 if name == "validation" else 8 * figures["calls"])
        assert figures["seconds"] > 0
        if name != "validation":
            assert measured.about["flops_per_image"] >= HEAD
            assert measured.about["first_call_seconds"] > measured.about["compile_seconds"] >= 0


def test_a_call_of_several_steps_takes_its_pictures_from_a_table(avatar_settings):
    several = {"after": "layer4", "batch_norm": "frozen", "steps_per_call": 3}
    measured = OPERATIONS["step"](avatar_settings | several)
    figures = measured.round()
    assert measured.about["steps_per_call"] == 3
    assert figures["images"] == 3 * 8 * figures["calls"]


def test_a_job_is_a_training_run(avatar_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path))
    fields = {"epochs": 1, "batch_size": 8, "tasks": ["gender"], "trainable": ["none"]}
    figures = OPERATIONS["job"](avatar_settings | {"recipe": "fast", "fields": fields}).round()
    assert figures["images"] == 44 + 20
    assert figures["epochs"] == 1 and set(figures["accuracy"]) == {"gender"}
    assert figures["compile_seconds"] > 0
    assert figures["loop_seconds"] <= figures["train_call_seconds"] <= figures["seconds"]


def test_a_setting_that_this_version_does_not_have_is_said(avatar_settings):
    from facefeat_jax.errors import UserError

    with pytest.raises(UserError, match="no setting warp"):
        OPERATIONS["feed"](avatar_settings | {"batches": 1, "fields": {"warp": 9}})


def _said(capsys, *argv: object) -> str:
    assert main(["benchmark", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    return captured.err


def test_wrong_calls_are_one_line_and_make_nothing(capsys, tmp_path):
    out = tmp_path / "out"
    calls = {
        ("--plan", "fast"): "unknown plan 'fast'",
        ("--stages", "steps"): "no stage steps",
        ("--downloads", tmp_path / "absent"): "--downloads takes a folder",
        ("--fraction", 0.5): "--synthetic FRACTION",
        ("--downloads", tmp_path, "--synthetic", 1): "give one of them",
    }
    for call, said in calls.items():
        assert said in _said(capsys, "--out", out, *call), call
        assert not out.exists()
    write_json(out / "results.json", {})
    assert "already holds results" in _said(capsys, "--out", out)


def test_the_command_measures_and_reports(tmp_path):
    command = [sys.executable, "-m", "facefeat_jax.cli", "benchmark", "--plan", "quick", "--stages", "matmul", "--json"]
    done = subprocess.run([*command, "--out", str(tmp_path / "b")], capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "b" / "results.json").read_text())
    (case,) = printed["cases"]
    assert set(case["entries"]) == {"ours"} and len(case["entries"]["ours"]["rounds"]) == 2
    assert printed["command"].startswith("facefeat benchmark --plan quick") and str(tmp_path) not in printed["command"]
    assert "| float32 | 256 | facefeat_jax |" in (tmp_path / "b" / "report.md").read_text()
    assert [path.name for path in (tmp_path / "b" / "work").iterdir()] == ["workers.log"]


@pytest.mark.slow
def test_the_quick_plan_goes_through_every_stage(tmp_path):
    command = [sys.executable, "-m", "facefeat_jax.cli", "benchmark", "--plan", "quick", "--out", str(tmp_path / "b")]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    for case in results["cases"]:
        for name, entry in case["entries"].items():
            assert entry["rounds"] and "error" not in entry, (case["name"], name, entry.get("error"))


def test_the_config_of_a_job_is_the_recipes_but_for_what_is_asked(avatar_settings):
    from facefeat_jax.benchmarking.ours import _config

    config = _config(avatar_settings | {"recipe": "fast", "fields": {"epochs": 2, "trainable": ["none"]}})
    assert isinstance(config, TrainConfig)
    assert (config.recipe, config.epochs, config.trainable, config.cache_prefix) == ("fast", 2, ("none",), True)
    assert (config.weights, config.sources, config.image_size) == ("random", ("avatars",), 32)
