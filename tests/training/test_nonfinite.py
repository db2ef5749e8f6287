"""Losses and gradients that are not finite."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.commands import train
from facefeat_jax.config import OptimizerConfig
from facefeat_jax.data.feeds import Batches
from facefeat_jax.data.placement import Placement
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.reporting.curves import write_curves
from facefeat_jax.runs.checkpoints import Checkpoints, best_step
from facefeat_jax.runs.logs import read_lines
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import _prefix as prefix
from facefeat_jax.training import _step_figures as step_figures
from facefeat_jax.training import steps
from facefeat_jax.training.data import open_data

pytestmark = pytest.mark.long

BAD = 17  # the number of a picture whose features are infinite


def test_a_skipped_step_leaves_all_but_its_number(small_model):
    model, spec = small_model("float32")
    trained = groups.trained_modules(ResNet.STAGES, ("none",))
    graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=True)
    optimizer = OptimizerConfig(learning_rate=1e-3, on_nonfinite="skip")
    rate = groups.learning_rate_schedule(optimizer, 3)
    step = steps.make_step(graph, spec, steps.StepOptions(trained, rate, "float32", optimizer, after="pooled"))
    call = steps.make_train_call(step, Placement())
    rows = np.random.RandomState(0).standard_normal((3, 4, 64)).astype(np.float32)
    rows[1, 2, 10] = np.inf
    batches = Batches(rows, None, {"shirt": np.ones((3, 4), np.int32)}, np.ones((3, 4), bool))

    def take(state, number):
        one = jax.tree.map(lambda values: values[number : number + 1], batches)
        return call(state, None, one, tasks=("shirt",))

    state = steps.create_state(model, trained)
    finite = []
    for number in range(3):
        before = jax.device_get(state)
        state, metrics = take(state, number)
        finite.append(bool(metrics["shirt"]["finite"][0]))
        if number == 1:
            after = jax.device_get(state)
            assert int(after.step) == 2
            jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(after, step=before.step), before)
    assert finite == [True, False, True]
    assert int(state.optimizer["shirt"].count) == 2
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


@pytest.fixture
def one_bad_picture(monkeypatch):
    outputs = prefix.Prefix.outputs

    def spoiled(self, source, ranges):
        for one, values in outputs(self, source, ranges):
            if len(source) == 44 and BAD in one:  # of the training pictures, not of those for validation
                values = values.at[BAD - one.start].set(jnp.inf)
            yield one, values

    monkeypatch.setattr(prefix.Prefix, "outputs", spoiled)


@pytest.fixture
def heads(tiny):
    """Heads alone, on features that lie on the device: four steps a call, 11 an epoch, a checkpoint after each call."""

    def config(run, **fields):
        defaults = {
            "trainable": ("none",),
            "batch_norm": "frozen",
            "cache_prefix": True,
            "feed": "device",
            "batch_size": 4,
            "steps_per_call": 4,
            "checkpoint_every": 4,
            "keep_best": True,
        }
        return tiny(run, **{**defaults, **fields})

    return config


def test_a_loss_that_is_not_finite_stops_the_run_or_skips_the_step(heads, tmp_path, one_bad_picture, capsys):
    config = heads(tmp_path / "run", seed=5)
    data = open_data(config.data, config.batches, seed=config.seed)
    stream = data.stream
    bad = [step + 1 for step in range(len(stream)) if BAD in stream[step].indices]
    assert len(bad) == 2 and bad[0] > 4  # once an epoch, and after the first checkpoint
    good = 4 * ((bad[0] - 1) // 4)
    with pytest.raises(UserError, match=f"gender is (nan|inf).* at step {bad[0]} of 22") as stopped:
        train(config)
    examples = data.training
    names = [examples.name(int(index)) for index in stream[bad[0] - 1].indices]
    assert all(name in str(stopped.value) for name in names)
    assert f"checkpoint is that of step {good}" in str(stopped.value)
    assert open_run(config.run).step == good

    capsys.readouterr()
    results = train(config.replace(resume=True, on_nonfinite="skip"))
    said = " ".join(capsys.readouterr().err.split())
    assert f"at step {bad[1]} of 22, with the pictures" in said and "the step is skipped" in said
    lines = read_lines(config.run / "metrics.jsonl")
    assert [line["step"] for line in lines if line["event"] in ("train", "nonfinite")] == list(range(1, 23))
    assert [line["step"] for line in lines if line["event"] == "nonfinite"] == bad
    assert next(line["pictures"] for line in lines if line["event"] == "nonfinite") == names
    assert all(np.isfinite(figures["loss"]) for figures in results["heads"].values())


def test_where_nothing_is_finite_any_more_skipping_ends(heads, tmp_path, monkeypatch):
    monkeypatch.setattr(step_figures, "_MOST_SKIPPED", 3)
    with pytest.raises(UserError, match=r"step 4 of 22.*3 steps in a row.*no checkpoint yet"):
        train(heads(tmp_path / "run", learning_rate=1e38, on_nonfinite="skip", checkpoint_every=100))


def test_a_validation_loss_that_is_not_finite_is_the_same_in_checkpoint_log_and_results(heads, tmp_path):
    """The weights are finite: training comes to its end. JSON has no number for such a loss, so it is a text."""
    config = heads(tmp_path / "run", learning_rate=1e38, on_nonfinite="skip", epochs=1, checkpoint_every=100)
    train(config)
    history = checked_json.read_checked(config.run / "results.json").content["history"]
    assert {entry["loss"] for entry in history} & {"inf", "nan"}
    store = Checkpoints(config.run, read_only=True)
    assert store.steps() == [11] and store.about(11)["history"] == history
    store.close()
    (line,) = (line for line in read_lines(config.run / "metrics.jsonl") if line["event"] == "validation")
    assert [line["tasks"][entry["task"]]["loss"] for entry in history] == [entry["loss"] for entry in history]
    assert write_curves(config.run).exists()
    assert open_run(config.run, "best").step == 11

    better = [{**entry, "epoch": 2, "step": 22, "loss": 9.0} for entry in history]
    assert best_step(history + better, 3) == best_step(better + history, 3) == 22
