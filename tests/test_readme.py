"""The README's Python runs as printed, and what it says of commands and files is there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from facefeat_jax.avatars import draw
from facefeat_jax.cli import COMMANDS
from facefeat_jax.commands._options import options_of
from facefeat_jax.config import TrainConfig, list_recipes

from .conftest import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.docs
def test_its_python_runs(resnet18_run, tmp_path):
    run = tmp_path / "runs" / "quickstart"
    (run / "pictures").mkdir(parents=True)
    for path in resnet18_run.iterdir():
        (run / path.name).symlink_to(path)
    draw(5, 0).image.save(run / "pictures" / "0.png")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", "\n".join(blocks)]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("runs/quickstart/pictures/0.png ")


def test_it_is_short_and_its_pictures_are_there_and_small():
    assert len(README.splitlines()) <= 150
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert [Path(picture).name for picture in pictures] == ["people.png", "curves.png", "report.png"]
    assert all((ROOT / picture).stat().st_size < 200_000 for picture in pictures)


def test_what_the_quick_start_prints_next_is_what_the_readme_says():
    makefile = (ROOT / "Makefile").read_text()
    commands = re.search(r"```\nmake quickstart .*?\nsource (\S+).*?\nfacefeat (.*?)\n```", README, re.DOTALL)
    assert commands and commands[1] == ".venv/bin/activate"
    following = commands[2].replace("runs/quickstart", "$(RUN)")
    assert f"source $(BIN)/activate; facefeat {following}" in makefile
    assert "VENV   ?= .venv\n" in makefile and "RUN    ?= runs/quickstart\n" in makefile


def test_its_commands_are_there():
    lines = [
        line.split("#")[0].split()
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
        if not language
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
        elif words[0] == "facefeat":
            kind = importlib.import_module(COMMANDS[words[1]]).Arguments
            known = [name for option in options_of(kind) for name in option.names]
            assert set(word for word in words if word.startswith("--")) - {"--"} <= {*known, "--smoke", "--run"}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/benchmarks/README.md"])
def test_links_inside_the_project_lead_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / document).parent / target).exists(), target
