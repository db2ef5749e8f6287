"""A signal at every point of a run at which something is saved, logged, validated or flushed, one after the other."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax.runs import run_folder
from facefeat_jax.runs._recorder import RunRecorder
from facefeat_jax.runs.checkpoints import Checkpoints
from facefeat_jax.runs.logs import Logs, read_lines
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system import checked_json, signals
from facefeat_jax.system.errors import Interrupted
from facefeat_jax.system.progress import Bar
from facefeat_jax.training._step_figures import StepFigures
from facefeat_jax.training.loop import train
from weights_conversion import to_torch

POINTS = (
    (StepFigures, "flush"),
    (RunRecorder, "save"),
    (Checkpoints, "save"),
    (Checkpoints, "wait"),
    (Logs, "write"),
    (Logs, "sync"),
    (Bar, "advance"),  # after each batch of a pass, of a validation and of what is read
    (run_folder, "write_file"),
)


@contextlib.contextmanager
def watched(monkeypatch, at: Callable[[int], None]) -> Iterator[None]:
    """Inside, `at` is called with the number of each call to one of the points, just before it."""
    count = 0

    def before(function):
        def called(*arguments, **options):
            nonlocal count
            count += 1
            at(count)
            return function(*arguments, **options)

        return called

    with monkeypatch.context() as patched:
        for owner, name in POINTS:
            patched.setattr(owner, name, before(getattr(owner, name)))
        yield


def what_it_left(run: Path) -> tuple[dict, list, dict]:
    """Returns weights, log and results; the checkpoints must say what the results say."""
    results = checked_json.read_checked(run / "results.json").content
    store = Checkpoints(run, read_only=True)
    for step in store.steps():
        assert store.about(step)["history"] == [entry for entry in results["history"] if entry["step"] <= step]
    assert max(store.steps()) == results["steps"]
    store.close()
    logged = [line for line in read_lines(run / "metrics.jsonl") if line["event"] != "pass"]
    return to_torch(open_run(run).model), logged, {name: results[name] for name in ("heads", "history")}


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"schedule": "sequential", "checkpoint_every": 3}], ids=["mixed", "sequential"])
def test_a_run_stopped_at_any_point_ends_as_if_it_had_not_been_stopped(tiny, tmp_path, monkeypatch, fields):
    """Within the loop it stops in order, with a checkpoint; before and after, the command is ended where it stands."""
    # No larger than it takes: two steps and two batches of validation in each of two passes.
    fields = {"limit": 8, "batch_size": 4, "tasks": ("glasses", "shirt"), "log_every": 1, "keep_best": True, **fields}
    fields |= {"trainable": ("none",), "batch_norm": "frozen", "cache_prefix": True, "feed": "device"}

    def config(name: str):
        return tiny(tmp_path / name, **fields)

    total = 0

    def counted(number: int) -> None:
        nonlocal total
        total = number

    with watched(monkeypatch, counted):
        train(config("whole"))
    weights, logged, results = what_it_left(tmp_path / "whole")
    assert total > 30
    in_order = 0
    for number in range(1, total + 1):
        stopped = config(f"stopped at {number}")

        def stop(now: int, number: int = number) -> None:
            if now == number:
                signal.raise_signal(signal.SIGTERM)

        with watched(monkeypatch, stop):
            try:
                with signals.handled():
                    train(stopped)
                pytest.fail(f"not stopped at {number}")
            except Interrupted:
                in_order += 1
            except signals.Terminated:
                pass
        train(stopped.replace(resume=(stopped.run / "config.json").exists()))
        again, lines, figures = what_it_left(stopped.run)
        assert (figures, lines) == (results, logged), number
        assert all(np.array_equal(again[name], value) for name, value in weights.items()), number
    assert in_order > total // 2
