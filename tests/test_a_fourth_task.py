"""A task more takes an entry in the table and a builder, nothing else: those of docs/add_a_task.md, put in their place.

The same from a program, without touching the project, is the page's last block; test_documentation.py runs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import weights_conversion

from .conftest import ROOT

PAGE = (ROOT / "docs" / "add_a_task.md").read_text()

# Draws few pictures where thousands would be, and no figures, then runs the commands, the one after the other.
DRIVER = """
import sys
from matplotlib.figure import Figure
from facefeat_jax.cli import main
from facefeat_jax.data import _drawn as drawn
from facefeat_jax.avatars import draw
drawn.TRAIN_SIZE, drawn.VAL_SIZE = 40, 16
draw(9, 0).image.save("hat.png")
drawn_empty = {"svg": '<svg viewBox="0 0 1 1"></svg>', "png": b""}
Figure.savefig = lambda self, file, format, **_: file.write(drawn_empty[format])
for call in sys.argv[1:]:
    print("$", call, flush=True)
    code = main(call.split())
    if code:
        sys.exit(f"{call}: {code}")
"""


def block(title: str) -> str:
    (found,) = re.findall(rf'```python title="{re.escape(title)}"\n(.*?)```', PAGE, re.DOTALL)
    return found


@pytest.mark.slow
def test_an_entry_and_a_builder_are_all_that_a_task_takes(tmp_path):
    for folder in ("facefeat_jax", "weights_conversion", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "facefeat_jax" / "tasks.py"
    last = '        Task("shirt", SHIRT_CLASSES, source="apparel", about_colour=True, frame="upper_body"),\n'
    text = table.read_text()
    assert text.count(last) == 1
    table.write_text(text.replace(last, f"{last}        {block('facefeat_jax/tasks.py').strip()},\n"))
    name = "facefeat_jax/data/builders/hats.py"
    (tmp_path / name).write_text(block(name))

    smoke = "--smoke --data-dir data --epochs 1 --trainable none"
    calls = [
        "prepare hats --data-dir data",
        f"train avatars --sources hats --tasks hat --run hats {smoke}",
        "evaluate hats --json",
        "predict hats hat.png",
        "export hats --to torch hats.safetensors",
        "convert hats.safetensors --to converted",
        # What was there before goes on as it was: the recipe's three tasks, from their own data set.
        "prepare avatars --data-dir data",
        f"train avatars --run avatars {smoke}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "FACEFEAT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *calls], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    heads = json.loads((tmp_path / "hats" / "results.json").read_text())["heads"]
    assert {task: figures["n"] for task, figures in heads.items()} == {"hat": 16}
    assert re.search(r"^hat\.png: hat: (no_hat|hat) ", done.stdout, re.MULTILINE), done.stdout
    assert "hat: no_hat, hat" in done.stdout
    assert "the hat head" not in done.stderr
    report = (tmp_path / "hats" / "report.html").read_text()
    assert "hat: training loss" in report and "The pictures of hats are drawn" in report
    exported = weights_conversion.read(tmp_path / "hats.safetensors")
    assert exported["hat_head.2.weight"].shape == (1, 256) and not any("shirt" in name for name in exported)
    heads = json.loads((tmp_path / "avatars" / "results.json").read_text())["heads"]
    assert list(heads) == ["gender", "glasses", "shirt"]
