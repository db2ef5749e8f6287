"""The ingredients of `best`, one by one: what each does to the numbers. (A run that goes on with all: test_loop.)"""

from __future__ import annotations

import dataclasses
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from facefeat_jax.config import OptimizerConfig
from facefeat_jax.data.index_stream import IndexStream
from facefeat_jax.models._values import split_values
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.runs import checkpoints
from facefeat_jax.system.errors import UserError
from facefeat_jax.training import _averaging as averaging
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import _saved_state as saved_state
from facefeat_jax.training import steps
from facefeat_jax.training._losses import per_example_loss


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def test_weight_decay_is_adamws_on_kernels_alone(float64):
    stream = np.random.RandomState(0)
    start = {
        "head": {
            "fc": {"kernel": stream.standard_normal((3, 2)), "bias": stream.standard_normal(2)},
            "bn": {"scale": stream.standard_normal(2), "bias": stream.standard_normal(2)},
        }
    }
    start = jax.tree.map(jnp.asarray, start)
    optimizer = groups.adam(OptimizerConfig(weight_decay=0.1))
    found, states = start, groups.init(start, optimizer)
    reference = optax.adamw(1e-2, eps=1e-8, weight_decay=0.1, mask=groups.decays)
    expected, state = start["head"], reference.init(start["head"])
    plain, plain_states = start, groups.init(start)
    for number in range(3):
        gradient = jax.tree.map(lambda value, n=number: jnp.cos(value + n), start)
        found, states = groups.update(found, gradient, states, 1e-2, {}, optimizer)
        plain, plain_states = groups.update(plain, gradient, plain_states, 1e-2, {})
        updates, state = reference.update(gradient["head"], state, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found["head"], expected)
    assert not np.allclose(found["head"]["fc"]["kernel"], plain["head"]["fc"]["kernel"], rtol=1e-6)
    for layer, name in (("fc", "bias"), ("bn", "scale"), ("bn", "bias")):
        np.testing.assert_array_equal(found["head"][layer][name], plain["head"][layer][name])


def test_a_head_that_stands_still_does_not_decay():
    start = {"trunk": {"kernel": jnp.ones(2)}, "shirt": {"kernel": jnp.ones(2)}}
    optimizer = groups.adam(OptimizerConfig(weight_decay=0.1))
    counts = {"shirt": jnp.asarray(0)}
    zero = jax.tree.map(jnp.zeros_like, start)
    moved, _ = groups.update(start, zero, groups.init(start, optimizer), 0.5, counts, optimizer)
    np.testing.assert_array_equal(moved["shirt"]["kernel"], 1)
    np.testing.assert_allclose(moved["trunk"]["kernel"], 1 - 0.5 * 0.1)


def test_the_average_is_optaxs_debiased_one(float64):
    stream = np.random.RandomState(0)
    sets = [{"w": jnp.asarray(stream.standard_normal(4)), "seen": jnp.asarray(n, jnp.int32)} for n in range(6)]
    average = averaging.start(sets[0])
    reference = optax.ema(0.7, debias=True)
    state = reference.init({"w": sets[0]["w"]})
    for number, values in enumerate(sets[1:]):
        average = averaging.update(average, values, 0.7, jnp.asarray(number, jnp.int32))
        expected, state = reference.update({"w": values["w"]}, state)
        np.testing.assert_allclose(average["w"], expected["w"], rtol=1e-13)
        assert average["seen"] == values["seen"]
        assert average["seen"].dtype == jnp.int32


def test_what_stands_still_keeps_its_last_bit_in_the_average():
    value = {"w": jnp.asarray(np.random.RandomState(0).standard_normal(1000), jnp.float32)}
    average = averaging.start(value)
    for number in range(20):
        average = averaging.update(average, value, 0.9, jnp.asarray(number))
    np.testing.assert_array_equal(average["w"], value["w"])
    narrow = averaging.start({"w": jnp.ones(2, jnp.bfloat16)})
    assert narrow["w"].dtype == jnp.float32
    assert averaging.as_values(narrow, {"w": jnp.ones(2, jnp.bfloat16)})["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("outputs", [1, 4])
def test_label_smoothing_mixes_the_losses_of_all_classes(float64, outputs):
    logits = jnp.asarray(np.random.RandomState(0).standard_normal((5, outputs)))
    classes = max(outputs, 2)
    labels = jnp.asarray([0, 1, 1, 0, classes - 1], jnp.int32)
    plain = per_example_loss(logits, labels)
    of_all = jnp.stack([per_example_loss(logits, jnp.full(5, one, jnp.int32)) for one in range(classes)])
    found = per_example_loss(logits, labels, smoothing=0.2)
    np.testing.assert_allclose(found, 0.8 * plain + 0.2 * of_all.mean(axis=0), rtol=1e-13)
    np.testing.assert_array_equal(per_example_loss(logits, labels, smoothing=0.0), plain)


def test_a_step_with_everything_off_is_the_step_as_it_was(small_model):
    """No field that is off leaves a trace in the traced program."""
    model, spec = small_model("float32")
    trained = groups.trained_modules(ResNet.STAGES, ("layer4",))
    graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=False)
    rate = optax.constant_schedule(1e-3)
    state = steps.create_state(model, trained)
    assert state.average is None
    rows, labels = np.zeros((2, 32, 32, 3), np.uint8), {"gender": np.zeros(2, np.int32)}
    args = (state, rows, labels, np.ones(2, bool))

    def program(**fields):
        options = steps.StepOptions(trained, rate, "float32", optimizer=OptimizerConfig(**fields))
        step = steps.make_step(graph, spec, options)
        return str(jax.make_jaxpr(lambda *args: step(*args, tasks=("gender",)))(*args))

    plain = program()
    assert program(label_smoothing=0.0, ema=0.0, weight_decay=0.0, layer_decay=1.0, unfreeze_every=0) == plain
    assert program(label_smoothing=0.1) != plain


class Sizes:
    """Labels without pictures: 800 of one set, 100 of another, 50 with both."""

    labels = {  # noqa: RUF012
        "gender": np.array([0] * 800 + [-1] * 100 + [1] * 50),
        "glasses": np.array([-1] * 800 + [1] * 100 + [0] * 50),
    }

    def labelled(self, task):
        return np.flatnonzero(self.labels[task] >= 0)


def make(balance, seed=0):
    return IndexStream(
        Sizes(), tasks=("gender", "glasses"), schedule="mixed", batch_size=100, epochs=2, seed=seed, balance=balance
    )


@pytest.mark.parametrize(("balance", "shares"), [(0.0, (1, 1, 1)), (0.5, (800**0.5, 100**0.5, 50**0.5))])
def test_balance_gives_each_set_its_share_of_every_batch(balance, shares):
    stream = make(balance)
    assert [one.num_pictures for one in stream.passes] == [950] * 2
    assert len(stream) == 20
    shares = np.array(shares) / sum(shares)
    for step in range(len(stream)):
        batch = stream[step]
        real = batch.indices[batch.mask]
        assert len(real) == (50 if step % 10 == 9 else 100)
        of_batch = np.array([(real < 800).sum(), ((real >= 800) & (real < 900)).sum(), (real >= 900).sum()])
        assert (np.abs(of_batch - len(real) * shares) < 2).all()


def test_balanced_sets_are_gone_through_whole_and_shuffled_anew():
    stream = make(0.0)
    batches = [stream[step] for step in range(len(stream))]
    seen = np.concatenate([batch.indices[batch.mask] for batch in batches])
    small = seen[seen >= 900]
    rounds = [tuple(small[start : start + 50]) for start in range(0, len(small) - 49, 50)]
    assert len(set(rounds)) == len(rounds) == 12
    assert all(sorted(one) == list(range(900, 950)) for one in rounds)
    large = seen[seen < 800]
    assert len(set(large)) == len(large)  # 633 of 800: none comes again before all have come
    assert not np.array_equal(make(0.0, seed=1)[0].indices, batches[0].indices)
    again = make(0.0)
    for step in (13, 2, 19):
        np.testing.assert_array_equal(again[step].indices, batches[step].indices)


def test_a_checkpoint_holds_the_average_as_its_model_and_what_is_trained_beside_it(small_model, tmp_path):
    model, _ = small_model("float32")
    state = steps.create_state(model, ("layer4",), optimizer=OptimizerConfig(weight_decay=0.1, ema=0.5))
    moved = jax.tree.map(lambda value: value + 1, (groups.of_names(state.params, state.average[0]), state.batch_stats))
    average = averaging.update(averaging.update(state.average, state.average, 0.5, 0), moved, 0.5, 1)
    params = groups.replace(state.params, moved[0])
    state = dataclasses.replace(
        state, params=params, batch_stats=moved[1], average=average, step=jnp.asarray(2, jnp.int32)
    )
    store = checkpoints.Checkpoints(tmp_path)
    store.save(2, saved_state.to_trees(state), {})
    store.wait()
    trees, _ = store.restore(2, saved_state.trees_like(state))
    final, statistics = store.restore_model(2, state.params, state.batch_stats)
    store.close()
    jax.tree.map(np.testing.assert_array_equal, saved_state.from_trees(trees), state)
    jax.tree.map(np.testing.assert_array_equal, (final, statistics), steps.final_weights(state))
    kernel = ("trunk", "layer4", 0, "conv1", "kernel")
    before, after, averaged = (
        np.asarray(reduce(lambda values, name: values[name], kernel, values))
        for values in (split_values(model)[1], state.params, final)
    )
    # Half of its weight lay on what came before: 1/3 and 2/3, debiased.
    np.testing.assert_allclose(averaged, before / 3 + after * 2 / 3, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        final["trunk"]["layer1"][0]["conv1"]["kernel"], state.params["trunk"]["layer1"][0]["conv1"]["kernel"]
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 1.0}, "--crop must be"),
        ({"erase": 1.5}, "--erase must be"),
        ({"ema": 1.0}, "--ema must be"),
        ({"label_smoothing": -0.1}, "--label-smoothing must be"),
        ({"colour_jitter": float("nan")}, "--colour-jitter must be"),
        ({"weight_decay": float("inf")}, "--weight-decay must be"),
        ({"balance": 2.0}, "--balance must be"),
        ({"balance": 0.5, "schedule": "sequential"}, "--balance .*mixed"),
        (
            {"cache_prefix": True, "batch_norm": "frozen", "flip": True, "crop": 0.1},
            "--no-flip --crop 0, or --no-cache-prefix",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(tiny, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        tiny(tmp_path / "run", **fields)
