"""The scripts that stand for commands are those commands: same options, same answers, same exit codes."""

from __future__ import annotations

import runpy
import sys

import pytest

from facefeat_jax import cli

from .conftest import ROOT


def run(monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    return ended.value.code, capsys.readouterr()


def test_scripts_answer_as_the_commands_do(monkeypatch, capsys, trained_run, tmp_path):
    for name, verb, arguments in [
        ("predict.py", "predict", [trained_run, tmp_path / "absent.png", "--format", "csv"]),
        ("evaluate.py", "evaluate", [trained_run, "--data", "absent"]),
        ("train.py", "train", ["avatar"]),
        ("train.py", "train", ["avatars", "--run", tmp_path, "--distributed", "--resume", "--overwrite"]),
    ]:
        code, said = run(monkeypatch, capsys, name, *arguments)
        assert code == cli.main([verb, *map(str, arguments)]) == 2
        assert said == capsys.readouterr()


def test_prepare_data_is_prepare_of_all_three(monkeypatch, capsys, tmp_path):
    """Zips too, which it once did not know."""
    (tmp_path / "fairface.zip").write_bytes(b"not a zip")
    code, said = run(monkeypatch, capsys, "prepare_data.py", "--downloads", tmp_path, "--data-dir", tmp_path / "data")
    command = ["prepare", "fairface", "glasses", "apparel", "--from", str(tmp_path)]
    assert code == cli.main([*command, "--data-dir", str(tmp_path / "data")]) == 2
    assert said == capsys.readouterr()
    assert "facefeat: " in said.err
