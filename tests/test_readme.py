"""The README's Python runs as printed, and what it says of commands and files is there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from facefeat_jax.avatars import draw
from facefeat_jax.cli import COMMANDS
from facefeat_jax.config import TrainConfig, list_recipes

from .conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_its_python_runs(resnet18_run, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "avatars").symlink_to(resnet18_run)
    (tmp_path / "runs" / "pictures").mkdir()
    draw(5, 0).image.save(tmp_path / "runs" / "pictures" / "0.png")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", "\n".join(blocks)]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("runs/pictures/0.png ")


def test_its_commands_are_there():
    lines = [
        line.split("#")[0].split()
        for block in re.findall(r"```\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
    ]
    calls = [words for words in lines if words]
    assert {words[1] for words in calls if words[0] == "facefeat"} >= set(COMMANDS) - {"models"}
    recipes = {words[2] for words in calls if words[:2] == ["facefeat", "train"]}
    assert recipes == set(list_recipes())
    makefile = (ROOT / "Makefile").read_text()
    for words in calls:
        if words[0] == "make":
            assert f"\n{words[1]}:" in makefile
        if words[0] == "python":
            assert (ROOT / words[1]).is_file()
        if words[:2] == ["facefeat", "train"]:
            for option in words[3:]:
                if option.startswith("--"):
                    assert option[2:].replace("-", "_") in TrainConfig().flat()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/benchmarks/README.md"])
def test_links_inside_the_project_lead_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / document).parent / target).exists(), target
