"""The cached prefix: the same training as without it, computed once, and only where that is sound."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weights_conversion
from facefeat_jax.commands import train
from facefeat_jax.config import OptimizerConfig, load_recipe
from facefeat_jax.data.placement import Placement
from facefeat_jax.forward import make_predict_step
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.models.trunk import POOLED
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.programs import Programs
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import _prefix as prefix
from facefeat_jax.training import steps
from facefeat_jax.training._prefix import Prefix, last_frozen

pytestmark = pytest.mark.long

BATCH, SIZE, STEPS = 6, 32, 3
TASKS = ("gender", "shirt")


class Pictures:
    """Made-up pictures as rows."""

    def __init__(self, count: int):
        self.shape, self.dtype = (SIZE, SIZE, 3), np.dtype(np.uint8)
        self.images = np.random.RandomState(3).randint(0, 256, (count, *self.shape)).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices):
        return self.images[indices]


class AtOnce(Programs):
    """Compiles in the thread that asks: others don't know that float64 is enabled in it."""

    def add(self, key, lower, title=""):
        self._compiled = lower().compile()

    def get(self, key):
        return self._compiled


@pytest.mark.parametrize(("trainable", "until"), [(("layer4",), "layer3"), (("none",), POOLED)])
def test_training_from_a_prefix_equals_training_from_pictures(small_model, trainable, until):
    """Losses, weights, moments and statistics after some steps, and the logits of validation, in float64."""
    with jax.enable_x64(True):
        model, spec = small_model("float64")
        trained = groups.trained_modules(ResNet.STAGES, trainable)
        assert last_frozen(ResNet.STAGES, trained) == until
        train_graph, eval_graph = steps.graphdefs(model, trained, freeze_batch_norm=True)
        rate = groups.learning_rate_schedule(OptimizerConfig(learning_rate=1e-3), 100)
        pictures, placement = Pictures(STEPS * BATCH - 2), Placement()
        whole = steps.create_state(model, trained)
        one = Prefix(eval_graph, whole.params, whole.batch_stats, spec, "float64", until, placement, AtOnce())
        one.compile_ahead()
        chunks = [range(0, 10), range(10, len(pictures))]
        kept = np.concatenate([values[: len(span)] for span, values in one.outputs(pictures, chunks)])
        assert kept.shape == (len(pictures), *one.shape)
        assert kept.dtype == one.dtype == np.float64

        def run(rows, after):
            step = steps.make_train_step(train_graph, spec, steps.StepOptions(trained, rate, "float64", after=after))
            state, losses = steps.create_state(model, trained), []
            for number in range(STEPS):
                indices = np.minimum(np.arange(BATCH) + number * BATCH, len(pictures) - 1)
                mask = np.arange(BATCH) + number * BATCH < len(pictures)  # the last batch is a short one
                labels = {task: (indices % 2).astype(np.int32) for task in TASKS}
                state, metrics = step(state, rows[indices], labels, mask, tasks=TASKS)
                losses.append([metrics[task]["loss"] for task in TASKS])
            predict = make_predict_step(eval_graph, spec, "float64", after=after)
            return state, losses, predict(state.params, state.batch_stats, rows[:BATCH], tasks=TASKS)

        def close(ours, theirs):
            scale = max(float(np.max(np.abs(theirs))), 1e-30)
            np.testing.assert_allclose(np.asarray(ours) / scale, np.asarray(theirs) / scale, rtol=0, atol=1e-10)

        jax.tree.map(close, run(kept, until), run(pictures.images, None))


def test_the_first_stage_can_not_be_both_trained_and_cached():
    with pytest.raises(UserError, match=r"stem, the first stage, is trained.*--no-cache-prefix"):
        last_frozen(ResNet.STAGES, groups.trained_modules(ResNet.STAGES, ("all",)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_norm": "batch"}, "--cache-prefix .* give --batch-norm frozen, or --no-cache-prefix"),
        ({"flip": True}, "--cache-prefix .* give --no-flip, or --no-cache-prefix"),
    ],
)
def test_what_does_not_go_with_a_cached_prefix_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        load_recipe("fast").replace(**fields)


def weights(run):
    return weights_conversion.to_torch(open_run(run).model)


@pytest.fixture(scope="module")
def fast(tiny):
    def config(run, **fields):
        defaults = {"trainable": ("layer4",), "batch_norm": "frozen", "cache_prefix": True, "epochs": 1}
        return tiny(run, **{**defaults, **fields})

    return config


def test_both_feeds_train_the_same_and_a_prefix_is_computed_once(fast, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    train(fast(tmp_path / "stream", feed="stream"))
    stores = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "rows").glob("*/rows.json")]
    assert sorted(store["what"] for store in stores) == ["layer3 of avatars train", "layer3 of avatars val"]
    train(fast(tmp_path / "device", feed="device"))

    def never(*arguments):
        raise AssertionError("it is in the cache")

    monkeypatch.setattr(prefix.Prefix, "outputs", never)
    train(fast(tmp_path / "again", feed="stream"))
    first, again, device = (weights(tmp_path / run) for run in ("stream", "again", "device"))
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
        # The batches are the same, but the programs are two, and may round differently.
        np.testing.assert_allclose(device[name], value, rtol=0, atol=1e-4 * np.abs(value).max(), err_msg=name)


def test_heads_alone_take_many_steps_in_a_call_and_other_weights_another_prefix(fast, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    for seed in (0, 1):
        train(fast(tmp_path / str(seed), trainable=("none",), feed="stream", seed=seed))
    stores = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "rows").glob("*/rows.json")]
    assert sorted(store["what"] for store in stores) == ["pooled of avatars train"] * 2 + ["pooled of avatars val"] * 2
    assert open_run(tmp_path / "0").config.pipeline.steps_per_call == 32
    lines = [json.loads(line) for line in (tmp_path / "0" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "train"] == [1, 2, 3, 4, 5, 6]


def test_a_prefix_keeps_the_type_of_the_computation(small_model):
    model, spec = small_model("bfloat16", "float32")
    _, eval_graph = steps.graphdefs(model, (), freeze_batch_norm=True)
    state = steps.create_state(model, ())
    one = Prefix(eval_graph, state.params, state.batch_stats, spec, "bfloat16", "layer2", Placement(), Programs())
    assert (one.shape, one.dtype) == ((4, 4, 16), jnp.bfloat16)
