"""Several steps in one call: the same training, resumed at the same places, and nothing waited for in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from facefeat_jax.commands import train
from facefeat_jax.config import AugmentationConfig, OptimizerConfig
from facefeat_jax.data.feeds import Batches
from facefeat_jax.data.placement import Placement
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.system import progress
from facefeat_jax.system.errors import Interrupted
from facefeat_jax.system.programs import Programs
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import loop, steps
from facefeat_jax.training._step_figures import StepFigures

from ..made import weights

pytestmark = pytest.mark.long

BATCH, SIZE, STEPS = 4, 32, 3
TASKS = ("gender", "shirt")


@pytest.mark.gpu
def test_steps_in_one_call_are_the_steps_one_after_the_other(small_model):
    """In float64, where only rounding may differ."""
    with jax.enable_x64(True):
        model, spec = small_model("float64")
        trained = groups.trained_modules(ResNet.STAGES, ("layer4",))
        graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=False)
        rate = groups.learning_rate_schedule(
            OptimizerConfig(learning_rate=1e-3, learning_rate_schedule="cosine", warmup_steps=1), STEPS
        )
        options = steps.StepOptions(trained, rate, "float64", augmentation=AugmentationConfig(flip=True), seed=3)
        step = steps.make_step(graph, spec, options)
        call = steps.make_train_call(step, Placement())
        stream = np.random.RandomState(0)
        batches = Batches(
            stream.randint(0, 256, (STEPS, BATCH, SIZE, SIZE, 3)).astype(np.uint8),
            None,
            {task: stream.randint(0, 2, (STEPS, BATCH)).astype(np.int32) for task in TASKS},
            np.ones((STEPS, BATCH), bool),
        )
        state, losses = steps.create_state(model, trained), []
        for number in range(STEPS):
            one = jax.tree.map(lambda values, n=number: values[n : n + 1], batches)
            state, metrics = call(state, None, one, tasks=TASKS)
            losses.append(metrics["shirt"]["loss"])
        together, metrics = call(steps.create_state(model, trained), None, batches, tasks=TASKS)
        np.testing.assert_allclose(metrics["shirt"]["loss"], np.concatenate(losses), rtol=1e-10)
        assert metrics["gender"]["count"].tolist() == [BATCH] * STEPS

        def close(ours, theirs):
            scale = max(float(np.max(np.abs(theirs))), 1e-30)
            np.testing.assert_allclose(np.asarray(ours) / scale, np.asarray(theirs) / scale, rtol=0, atol=1e-10)

        jax.tree.map(close, together, state)


@pytest.fixture(scope="module")
def heads(tiny):
    """Returns a function to a config that trains heads alone, four steps a call; 11 steps an epoch, the last call 3."""

    def config(run, **fields):
        defaults = {
            "trainable": ("none",),
            "batch_norm": "frozen",
            "cache_prefix": True,
            "batch_size": 4,
            "steps_per_call": 4,
            "log_every": 2,
            "tasks": ("glasses", "shirt"),
        }
        return tiny(run, **{**defaults, **fields})

    return config


@pytest.mark.gpu
@pytest.mark.parametrize("feed", ["stream", "device"])
def test_a_run_resumed_between_calls_ends_with_the_same_weights(heads, tmp_path, monkeypatch, feed):
    whole = train(heads(tmp_path / "whole", feed=feed, checkpoint_every=6))
    config = heads(tmp_path / "stopped", feed=feed, checkpoint_every=6)
    calls = 0

    class StoppedBar(progress.Bar):
        def advance(self, pictures):
            nonlocal calls
            calls += 1
            if calls == 2:
                signal.raise_signal(signal.SIGTERM)
            super().advance(pictures)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Bar", StoppedBar)
        with pytest.raises(Interrupted, match="stopped at step 8 of 22"):
            train(config)
    # Left to choose, it takes what it had chosen before.
    resumed = train(config.replace(resume=True, feed="auto", steps_per_call=0))
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert resumed["history"] == whole["history"]


@pytest.mark.gpu
def test_nothing_in_the_loop_waits_for_the_step_that_was_just_begun(heads, tmp_path, monkeypatch):
    """Every array that comes to the host while steps are under way belongs to a call that is two or more back."""
    calls = 0  # made so far
    call_of: dict[int, int] = {}  # of the arrays that a call returned, by id
    kept, early, reads = [], [], 0
    array = type(jax.numpy.zeros(()))
    value = array._value
    in_pass = False

    def counted(self):
        nonlocal reads
        if in_pass and id(self) in call_of:
            reads += 1
            if call_of[id(self)] > calls - 2:
                early.append((call_of[id(self)], calls))
        return value.fget(self)

    get = Programs.get

    def watched(self, key):
        program = get(self, key)
        if not isinstance(key, tuple) or not isinstance(key[-1], int):
            return program

        def call(*arguments):
            nonlocal calls, in_pass
            calls, in_pass = calls + 1, True
            outputs = program(*arguments)
            kept.append(outputs)  # so that no other array takes its id
            call_of.update({id(leaf): calls for leaf in jax.tree.leaves(outputs)})
            return outputs

        return call

    flush = StepFigures.flush

    def at_the_end(self, keep=0):
        nonlocal in_pass
        was, in_pass = in_pass, in_pass and keep > 0  # where all is flushed, the pass is over
        try:
            return flush(self, keep)
        finally:
            in_pass = was and keep > 0

    monkeypatch.setattr(array, "_value", property(counted))
    monkeypatch.setattr(Programs, "get", watched)
    monkeypatch.setattr(StepFigures, "flush", at_the_end)
    train(heads(tmp_path / "run", feed="stream", steps_per_call=1, checkpoint_every=1000))
    assert calls == 22
    assert reads > 22  # the loop does read, or this test would see nothing
    assert not early


def test_the_state_is_given_away_not_copied(small_model):
    model, spec = small_model("float32")
    trained = groups.trained_modules(ResNet.STAGES, ("none",))
    graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=True)
    rate = groups.learning_rate_schedule(OptimizerConfig(learning_rate=1e-3), 3)
    call = steps.make_train_call(
        steps.make_step(graph, spec, steps.StepOptions(trained, rate, "float32", after="pooled")), Placement()
    )
    batches = Batches(
        np.zeros((1, 4, 64), np.float32), None, {"gender": np.zeros((1, 4), np.int32)}, np.ones((1, 4), bool)
    )
    before = jax.device_put(steps.create_state(model, trained), Placement().replicated)
    call(before, None, batches, tasks=("gender",))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


_ON_DEVICES = """
import jax, numpy as np, sys
jax.config.update("jax_enable_x64", True)
from facefeat_jax.config import OptimizerConfig
from facefeat_jax.data.feeds import Batches, Table
from facefeat_jax.data.placement import Placement
from facefeat_jax.models import MultiTaskModel, ResNet
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.training import _groups as groups, steps
from flax import nnx

STEPS, BATCH, PICTURES = 3, 6, 18
spec = ModelSpec("resnet18", {"gender": ("female", "male")}, 64, "as_notebook", "random")
options = {"dtype": "float64", "param_dtype": "float64", "rngs": nnx.Rngs(0)}
model = MultiTaskModel(ResNet((1, 1, 1, 1), **options), spec.tasks, **options)
trained = groups.trained_modules(ResNet.STAGES, ("all",))
graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=False)
rate = groups.learning_rate_schedule(OptimizerConfig(learning_rate=1e-3), STEPS)
stream = np.random.RandomState(0)
rows = stream.randint(0, 256, (PICTURES, 64, 64, 3)).astype(np.uint8)
labels = stream.randint(0, 2, PICTURES).astype(np.int32)
results = []
for devices, feed in ((1, "stream"), (2, "stream"), (4, "stream"), (4, "device")):
    placement = Placement(jax.devices()[:devices])
    call = steps.make_train_call(
        steps.make_step(graph, spec, steps.StepOptions(trained, rate, "float64")), placement
    )
    state = jax.device_put(steps.create_state(model, trained), placement.replicated)
    size, table = placement.round_up(BATCH), None
    if feed == "device":
        padded = (0, placement.round_up(PICTURES) - PICTURES)
        table = Table(np.pad(rows, (padded, *[(0, 0)] * 3)), {"gender": np.pad(labels, padded)})
        table = jax.device_put(table, placement.table)
    losses = []
    for step in range(STEPS):
        count = BATCH if step < STEPS - 1 else 5  # over 4 devices: 2, 2, 1 and none
        indices = np.full(size, step * BATCH)
        indices[:count] = step * BATCH + np.arange(count)
        mask = (np.arange(size) < count)[None]
        if table is None:
            known = np.where(mask, labels[indices], -1).astype(np.int32)
            batches = Batches(rows[indices][None], None, {"gender": known}, mask)
        else:
            batches = Batches(None, indices[None].astype(np.int32), {}, mask)
        state, metrics = call(state, table, jax.device_put(batches, placement.batches), tasks=("gender",))
        losses.append(float(metrics["gender"]["loss"][0]))
    assert len(state.params["trunk"]["conv1"]["kernel"].sharding.device_set) == devices
    results.append((f"{devices} {feed}", losses, jax.device_get((state.params, state.batch_stats))))
for name, losses, values in results[1:]:
    np.testing.assert_allclose(losses, results[0][1], rtol=1e-10, err_msg=name)
    for one, other in zip(jax.tree.leaves(values), jax.tree.leaves(results[0][2]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max(), err_msg=name)
print("equal:", *(name for name, *_ in results))
"""


@pytest.mark.slow
def test_any_number_of_devices_trains_the_same_weights():
    """Batches of 6 over 1, 2 and 4 devices, the last with 5 pictures, in float64: losses, weights and statistics."""
    done = subprocess.run(
        [sys.executable, "-c", _ON_DEVICES],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal:", "1", "stream", "2", "stream", "4", "stream", "4", "device"]
