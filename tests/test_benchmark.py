"""`facefeat benchmark`: its stages on tiny pictures, and the command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from facefeat_jax.benchmarking import command
from facefeat_jax.benchmarking.command import STAGES
from facefeat_jax.benchmarking.stages import OPERATIONS, config_of
from facefeat_jax.cli import main
from facefeat_jax.config import TrainConfig
from facefeat_jax.runs.run_folder import write_json
from facefeat_jax.system.errors import UserError

pytestmark = pytest.mark.long


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


def test_steps_and_validation_are_measured(avatar_settings, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path))
    for name in ("step", "validation"):
        # The step from the last stage's outputs on: the program for the whole trunk takes long to compile.
        measured = OPERATIONS[name](avatar_settings | {"after": "layer4", "batch_norm": "frozen"})
        figures = measured.round()
        assert figures["images"] == (20 if name == "validation" else 8 * figures["calls"])
        assert figures["seconds"] > 0
        if name != "validation":
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
        ("--stages", "steps"): "no stage steps",
        ("--data-dir", tmp_path, "--stages", "decode"): "'avatars' is not prepared",
        ("--data-dir", tmp_path, "--sources", "glasses"): "'glasses' is not prepared",
        ("--sources", "spectacles"): "unknown data set 'spectacles'",
    }
    for call, said in calls.items():
        assert said in _said(capsys, "--out", out, *call), call
        assert not out.exists()
    write_json(out / "results.json", {})
    assert "already holds results" in _said(capsys, "--out", out)


def _command(tmp_path, *argv: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "facefeat_jax.cli", "benchmark", "--plan", "quick", *map(str, argv)]
    return subprocess.run([*command, "--out", str(tmp_path / "b")], capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_the_command_measures_and_reports(tmp_path, avatars_dir):
    stages = ("matmul", "decode")
    done = _command(tmp_path, "--stages", *stages, "--data-dir", avatars_dir, "--json")
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "b" / "results.json").read_text())
    assert [case["stage"] for case in printed["cases"]] == list(stages)
    for case in printed["cases"]:
        assert all(entry["rounds"] and "error" not in entry for entry in case["entries"].values()), case
    assert printed["command"].startswith("facefeat benchmark --plan quick") and str(tmp_path) not in printed["command"]
    assert printed["device"] == "cpu" and printed["environment"]["devices"].startswith("cpu x")
    report = (tmp_path / "b" / "report.md").read_text()
    assert "| decode |" in report and "images/s" in report and "TFLOP/s" in report
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["report.md", "results.json"]


def test_without_data_what_needs_none_is_measured(tmp_path, capsys):
    assert main(["benchmark", "--data-dir", str(tmp_path), "--budget", "0", "--out", str(tmp_path / "b")]) == 0
    report = capsys.readouterr().out
    assert "| decode |  | not measured: data set 'avatars' is not prepared" in report
    assert "| step/all |  | not measured: no time left of 0 s" in report


def test_what_fails_is_in_the_table_and_the_rest_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    assert main(["benchmark", "--plan", "quick", "--stages", "matmul", "--out", str(tmp_path / "b")]) == 1
    assert "| matmul/auto |  | not measured: its process ended with exit code" in capsys.readouterr().out


def test_what_takes_too_long_is_in_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "_TIMEOUT", 0.01)
    assert main(["benchmark", "--plan", "quick", "--stages", "matmul", "--out", str(tmp_path / "b")]) == 1
    assert "| matmul/auto |  | not measured: not done within 0.01 s" in capsys.readouterr().out


@pytest.mark.slow
def test_the_quick_plan_goes_through_every_stage(tmp_path, avatars_dir):
    _command(tmp_path, "--data-dir", avatars_dir)
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert {case["stage"] for case in results["cases"]} == set(STAGES)
    for case in results["cases"]:
        for name, entry in case["entries"].items():
            assert entry["rounds"] and "error" not in entry, (case["name"], name, entry.get("error"))


def test_the_config_of_a_job_is_the_recipes_but_for_what_is_asked(avatar_settings):
    config = config_of(avatar_settings | {"recipe": "fast", "fields": {"epochs": 2, "trainable": ["none"]}})
    assert isinstance(config, TrainConfig)
    assert (config.recipe, config.batches.epochs, config.model.trainable) == ("fast", 2, ("none",))
    assert (config.model.weights, config.pipeline.cache_prefix) == ("random", True)
    assert (config.data.sources, config.data.image_size) == (("avatars",), 32)
