"""The scripts that stand for commands are those commands: same options, same answers, same exit codes."""

from __future__ import annotations

import subprocess
import sys

from facefeat_jax import cli

from .conftest import ROOT


def run(name, *arguments):
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_scripts_answer_as_the_commands_do(capsys, tmp_path):
    """Zips too, and --distributed, which the scripts once did not know."""
    (tmp_path / "fairface.zip").write_bytes(b"not a zip")
    three = ["fairface", "glasses", "apparel"]
    for name, command, arguments in [
        ("train.py", ["train"], ["avatars", "--run", tmp_path, "--distributed", "--resume", "--overwrite"]),
        ("evaluate.py", ["evaluate"], [tmp_path / "absent", "--json"]),
        ("predict.py", ["predict"], [tmp_path / "absent", "a.png", "--out", "a.txt"]),
        ("prepare_data.py", ["prepare", *three], ["--downloads", tmp_path, "--data-dir", tmp_path / "data"]),
    ]:
        code, out, err = run(name, *arguments)
        assert code == cli.main([*command, *map(str, arguments)]) == 2
        assert (out, err) == tuple(capsys.readouterr())
        assert err.startswith("facefeat: ")
