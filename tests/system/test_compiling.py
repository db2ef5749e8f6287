"""What programs cost, what is shown of a wait, and how many programs a training compiles."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from facefeat_jax.runs import run_folder
from facefeat_jax.system import compiling, progress
from facefeat_jax.system.programs import Programs

# Programs of a whole training, those of the report's Grad-CAM (one) left out; see `count_of`.
MOST = {"avatars": 5, "baseline": 7, "fast": 7, "best": 5}


def test_a_program_says_what_it_cost_and_when_it_was_needed():
    compiling.listen()
    programs, began = Programs(), time.perf_counter()
    programs.add("one", lambda: jax.jit(lambda x: x + np.float32(0.123)).lower(jax.ShapeDtypeStruct((), "float32")))
    programs.get("one")
    programs.close()
    (found,) = [program.to_json(began) for program in compiling.since(began)]
    assert found["name"] == "<lambda>" and found["cached"] in (False, True)
    assert all(found[name] > 0 for name in ("tracing", "lowering", "compiling"))
    assert 0 <= found["needed"] <= found["ready"] <= time.perf_counter() - began


@pytest.fixture
def slow(monkeypatch):
    """A program that takes a while to compile, and what is said meanwhile."""
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    monkeypatch.setattr(progress, "_FIRST_LINE_S", 0.01)
    monkeypatch.setattr(progress, "_LINES_S", 0.01)
    until = threading.Event()
    programs = Programs()
    programs.add("slow", lambda: until.wait(20) and jax.jit(lambda x: x).lower(0.0), "the training step")
    yield programs, said, until
    until.set()
    programs.close()


def test_without_a_terminal_a_wait_is_a_line_now_and_then(slow):
    programs, said, until = slow
    threading.Timer(0.2, until.set).start()
    programs.get("slow")
    assert len(said) > 2 and set(said) == {"compiling the training step (0 s)"}


def test_a_bar_that_nobody_sees_says_now_and_then_where_it_is(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    monkeypatch.setattr(progress, "_LINES_S", -1.0)
    with progress.Bar("epoch 1/3", 1200, completed=200) as bar:
        bar.advance(32)
    assert said[0].startswith("epoch 1/3: 232 of 1,200, ") and said[0].endswith(" images/s")


def test_a_training_says_what_each_of_its_programs_cost(trained_run):
    results = json.loads((trained_run / run_folder.RESULTS).read_bytes())
    assert len(results["programs"]) <= MOST["avatars"], [program["name"] for program in results["programs"]]
    assert 0 < results["timings"]["first_step"] < results["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", MOST)
def test_no_recipe_compiles_more_programs_than_it_did(recipe, avatars_dir, tmp_path):
    run = tmp_path / recipe
    options = ["--smoke", "--data-dir", str(avatars_dir), "--run", str(run)]
    subprocess.run([sys.executable, "-m", "facefeat_jax.cli", "train", recipe, *options], check=True, timeout=900)
    programs = json.loads((run / run_folder.RESULTS).read_bytes())["programs"]
    assert len(programs) <= MOST[recipe], [program["name"] for program in programs]
