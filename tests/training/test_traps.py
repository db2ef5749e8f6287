"""The rules of the baseline that a port gets wrong unless it knows them: one test or more for each, on production code.

Each fails when its trap is sprung; equality with PyTorch as a whole is proved in tests/golden and tests/compare.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view

from facefeat_jax.config import load_recipe
from facefeat_jax.data.index_stream import IndexStream, in_order
from facefeat_jax.evaluation.metrics import head_result
from facefeat_jax.models import BatchNorm, Head, ResNet
from facefeat_jax.models.head import torch_linear
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.tasks import NOTEBOOK_SHIRT_CLASSES, SHIRT_CLASSES, TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps
from facefeat_jax.training._losses import per_example_loss

pytestmark = pytest.mark.long

BATCH, SIZE = 6, 32
LEARNING_RATE = 1e-4


class _Trainer:
    """The notebook's training step on a small model: layer4 and the heads trained, BatchNorm as the recipe has it."""

    def __init__(self, small_model, dtype: str):
        self.model, spec = small_model(dtype)
        recipe = load_recipe("baseline")
        self.trained = groups.trained_modules(ResNet.STAGES, recipe.model.trainable, ResNet.LAST)
        graph, self.eval_graph = steps.graphdefs(
            self.model, self.trained, freeze_batch_norm=recipe.model.batch_norm == "frozen"
        )
        rate = groups.learning_rate_schedule(recipe.optimizer, 100)
        self.step = steps.make_train_step(graph, spec, steps.StepOptions(self.trained, rate, dtype))

    def start(self) -> steps.TrainState:
        return steps.create_state(self.model, self.trained)


def _batch(task: str, count: int = BATCH, seed: int = 1) -> tuple:
    stream = np.random.RandomState(seed)
    images = stream.randint(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
    return images, {task: stream.randint(0, 2, count).astype(np.int32)}, np.ones(count, bool)


def _host(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def trainer(small_model) -> _Trainer:
    return _Trainer(small_model, "float32")


# --- 1. model.train() reaches the frozen layers


def test_frozen_layers_move_their_statistics_and_not_their_weights(trainer: _Trainer) -> None:
    before = _host(trainer.start())
    state, _ = trainer.step(trainer.start(), *_batch("gender"), tasks=("gender",))
    after = _host(state)
    for module in ("conv1", "bn1", "layer1", "layer2", "layer3"):
        jax.tree.map(np.testing.assert_array_equal, after.params["trunk"][module], before.params["trunk"][module])
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), after.batch_stats, before.batch_stats)
    assert all(jax.tree.leaves(moved)), moved
    still = jax.tree.map(np.array_equal, after.params["trunk"]["layer4"], before.params["trunk"]["layer4"])
    assert not any(jax.tree.leaves(still)), still


def test_frozen_layers_normalise_with_the_batchs_statistics(trainer: _Trainer) -> None:
    """The loss does not depend on any running statistic, the frozen layers' included."""
    batch, start = _batch("gender"), trainer.start()
    other = dataclasses.replace(
        trainer.start(), batch_stats=jax.tree.map(lambda value: value * 3 + 1, trainer.start().batch_stats)
    )
    _, expected = trainer.step(start, *batch, tasks=("gender",))
    _, metrics = trainer.step(other, *batch, tasks=("gender",))
    assert float(metrics["gender"]["loss"]) == float(expected["gender"]["loss"])


# --- 2. BatchNorm's momentum, epsilon and variances


def test_batch_norm_stores_the_unbiased_variance_and_uses_the_biased_one() -> None:
    with jax.enable_x64(True):
        inputs = np.random.RandomState(0).standard_normal((2, 2, 3, 4)) * 0.01
        layer = BatchNorm(4, param_dtype=jnp.float64)
        layer.mean[...] = jnp.full(4, 5.0)
        layer.var[...] = jnp.full(4, 7.0)
        layer.num_batches_tracked[...] = jnp.int32(41)
        outputs = layer(jnp.asarray(inputs))
        mean, biased = inputs.mean((0, 1, 2)), inputs.var((0, 1, 2))
        # The deviation is near sqrt(epsilon): another epsilon, or one added to the deviation, would show.
        np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(biased + 1e-5), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(layer.mean[...], 0.9 * 5 + 0.1 * mean, rtol=1e-14)
        np.testing.assert_allclose(layer.var[...], 0.9 * 7 + 0.1 * inputs.var((0, 1, 2), ddof=1), rtol=1e-14)
        assert int(layer.num_batches_tracked[...]) == 42


# --- 3. Heads that are not in the loss stand still


def test_other_heads_stand_still_and_the_trunk_goes_on(trainer: _Trainer) -> None:
    state = trainer.start()
    for task in ("gender", "gender", "glasses"):
        state, _ = trainer.step(state, *_batch(task), tasks=(task,))
    before = _host(state)
    assert {name: int(adam.count) for name, adam in before.optimizer.items()} == {
        "trunk": 3,
        "gender": 2,
        "glasses": 1,
        "shirt": 0,
    }
    state, _ = trainer.step(state, *_batch("glasses", seed=2), tasks=("glasses",))
    after = _host(state)
    # gender has moments: an Adam that was fed zero gradients would move it on and let them decay.
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(before.optimizer["gender"].mu))
    for head in ("gender", "shirt"):
        jax.tree.map(np.testing.assert_array_equal, after.params["heads"][head], before.params["heads"][head])
        jax.tree.map(np.testing.assert_array_equal, after.optimizer[head], before.optimizer[head])
    assert int(after.optimizer["trunk"].count) == 4 and int(after.optimizer["glasses"].count) == 2
    for name in ("hidden", "output"):
        assert np.any(
            after.params["heads"]["glasses"][name]["kernel"] != before.params["heads"]["glasses"][name]["kernel"]
        )


def test_adams_first_step_has_torchs_epsilon_outside_the_root() -> None:
    with jax.enable_x64(True):
        values, gradient = jnp.asarray([1.0, 2.0, 3.0]), np.array([1e-8, -1e-3, 5.0])
        start = {"trunk": {"w": values}}
        updated, states = groups.update(start, {"trunk": {"w": jnp.asarray(gradient)}}, groups.init(start), 1e-4, {})
        expected = values - 1e-4 * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(updated["trunk"]["w"], expected, rtol=1e-14)
        np.testing.assert_allclose(states["trunk"].mu["w"], 0.1 * gradient, rtol=1e-12)
        np.testing.assert_allclose(states["trunk"].nu["w"], 0.001 * gradient**2, rtol=1e-12)


# --- 4. Symmetric padding


def _convolved(inputs: np.ndarray, kernel: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """Convolution of NHWC inputs with an HWIO kernel, `pad` zeros on every side."""
    padded = np.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(padded, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("nyxihw,hwio->nyxo", windows, kernel)


def _pooled(inputs: np.ndarray) -> np.ndarray:
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))


def test_every_convolution_pads_on_both_sides(small_model) -> None:
    """Against convolutions written out in numpy; on even maps "SAME" would pad the strided ones on one side only."""
    with jax.enable_x64(True):
        trunk, stream = small_model("float64")[0].trunk, np.random.RandomState(0)
        for block, side in ((trunk.layer1[0], 8), (trunk.layer2[0], 8), (trunk.layer4[0], 6)):
            for convolution in (block.conv1, block.conv2, block.downsample_conv):
                if convolution is None:
                    continue
                kernel = np.array(convolution.kernel[...])
                inputs = stream.standard_normal((1, side, side, kernel.shape[2]))
                expected = _convolved(inputs, kernel, convolution.strides[0], (kernel.shape[0] - 1) // 2)
                np.testing.assert_allclose(convolution(jnp.asarray(inputs)), expected, rtol=1e-9, atol=1e-9)
        kernel, inputs = np.array(trunk.conv1.kernel[...]), stream.standard_normal((1, 32, 32, 3))
        expected = _convolved(inputs, kernel, 2, 3)
        np.testing.assert_allclose(trunk.conv1(jnp.asarray(inputs)), expected, rtol=1e-9, atol=1e-9)


def test_the_stems_pool_pads_with_minus_infinity(small_model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inputs follow a ReLU, where zeros would do as well; without the ReLU the padding shows."""
    with jax.enable_x64(True):
        trunk = small_model("float64")[0].trunk
        trunk.eval()
        trunk.bn1.bias[...] = trunk.bn1.bias[...] - 100.0  # every value below zero
        images = jnp.asarray(np.random.RandomState(0).standard_normal((1, 32, 32, 3)))
        monkeypatch.setattr(nnx, "relu", lambda values: values)
        stem_inputs = np.asarray(trunk.bn1(trunk.conv1(images)))
        assert stem_inputs.max() < 0
        np.testing.assert_allclose(trunk.stages(images)["stem"], _pooled(stem_inputs), rtol=1e-12)


# --- 5. The last batch, however small


def test_a_short_batch_padded_equals_it_unpadded(small_model) -> None:
    """Loss, weights, moments and statistics after the step, in float64; the loss is the mean over the real rows."""
    real = 4
    with jax.enable_x64(True):
        trainer = _Trainer(small_model, "float64")
        images, labels, mask = _batch("shirt", real)
        plain, expected = trainer.step(trainer.start(), images, labels, mask, tasks=("shirt",))
        padding = np.random.RandomState(5).randint(0, 256, (BATCH - real, SIZE, SIZE, 3)).astype(np.uint8)
        padded, metrics = trainer.step(
            trainer.start(),
            np.concatenate([images, padding]),
            {"shirt": np.concatenate([labels["shirt"], np.full(BATCH - real, -1, np.int32)])},
            np.arange(BATCH) < real,
            tasks=("shirt",),
        )
        np.testing.assert_allclose(metrics["shirt"]["loss"], expected["shirt"]["loss"], rtol=1e-12)
        assert int(metrics["shirt"]["count"]) == int(expected["shirt"]["count"]) == real
        assert int(metrics["shirt"]["correct"]) == int(expected["shirt"]["correct"])

        def close(ours, theirs):
            scale = max(float(jnp.max(jnp.abs(theirs))), 1e-30)
            np.testing.assert_allclose(np.asarray(ours) / scale, np.asarray(theirs) / scale, rtol=0, atol=1e-9)

        jax.tree.map(close, padded, plain)


def test_the_step_reports_the_mean_over_the_real_rows(trainer: _Trainer) -> None:
    real = 4
    images, labels, _ = _batch("glasses")
    _, metrics = trainer.step(trainer.start(), images, labels, np.arange(BATCH) < real, tasks=("glasses",))
    trainer.model.train()
    graph, params, stats = nnx.split(trainer.model, nnx.Param, nnx.BatchStat)
    model = nnx.merge(graph, params, stats, copy=True)
    logits = model(_normalised(images[:real]), tasks=("glasses",))["glasses"]
    expected = per_example_loss(logits, jnp.asarray(labels["glasses"][:real])).mean()
    assert float(metrics["glasses"]["loss"]) == pytest.approx(float(expected), rel=1e-4)


def _normalised(images: np.ndarray) -> jax.Array:
    scaled = (images / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return jnp.asarray(scaled, jnp.float32)


def test_the_last_batch_of_a_pass_is_trained() -> None:
    """5,564 shirts make 173 full batches and one of 28."""

    class Shirts:
        labels = {"shirt": np.zeros(5564, np.int32)}  # noqa: RUF012

        def labelled(self, task: str) -> np.ndarray:
            return np.arange(5564)

    stream = IndexStream(Shirts(), tasks=("shirt",), schedule="sequential", batch_size=32, epochs=2, seed=0)
    assert [one.num_steps for one in stream.passes] == [174, 174]
    for first in (0, 174):
        batches = [stream[step] for step in range(first, first + 174)]
        assert [int(batch.mask.sum()) for batch in batches] == [32] * 173 + [28]
        seen = np.concatenate([batch.indices[batch.mask] for batch in batches])
        assert sorted(seen) == list(range(5564))


@pytest.mark.parametrize(("count", "last"), [(8196, 4), (984, 24), (1391, 15)])
def test_the_reported_validation_loss_is_the_mean_of_batch_means(count: int, last: int) -> None:
    batches = in_order(np.arange(count), ("gender",), 32)
    assert int(batches[-1].mask.sum()) == last
    stream = np.random.RandomState(count)
    labels, logits = stream.randint(0, 2, count), stream.standard_normal((count, 1)) * 2
    logits[-last:] += 3  # makes the last, short batch weigh differently in the two means
    result = head_result(logits, labels, batch_size=32)
    probabilities = 1 / (1 + np.exp(-logits[:, 0]))
    losses = -np.where(labels == 1, np.log(probabilities), np.log(1 - probabilities))
    means = [losses[batch.indices[batch.mask]].mean() for batch in batches]
    assert result.loss_of_batches == pytest.approx(np.mean(means), rel=1e-12)
    assert result.loss == pytest.approx(losses.mean(), rel=1e-12)
    assert result.loss_of_batches != pytest.approx(result.loss, rel=1e-6)


# --- 6. Where new linear layers start


@pytest.mark.parametrize("fan_in", [512, 256])
def test_linear_layers_start_uniform_within_one_over_the_root_of_fan_in(fan_in: int) -> None:
    """Many small draws rather than one: bounds reached but not crossed, the deviation of a uniform, a mean of zero."""
    bound = 1 / math.sqrt(fan_in)
    layer = torch_linear(fan_in, 4096, rngs=nnx.Rngs(7))
    for values in (np.array(layer.kernel[...]).ravel(), np.array(layer.bias[...])):
        n = values.size
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > bound * (1 - 20 / n)
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(n))
        assert abs(values.mean()) < 5 * bound / math.sqrt(3 * n)
    assert not np.array_equal(layer.bias[...], layer.kernel[...][0])


def test_heads_are_made_of_such_layers() -> None:
    head = Head(512, 8, rngs=nnx.Rngs(0))
    for layer, fan_in, outputs in ((head.hidden, 512, 256), (head.output, 256, 8)):
        bound = 1 / math.sqrt(fan_in)
        assert layer.kernel.shape == (fan_in, outputs)
        for values in (layer.kernel[...], layer.bias[...]):
            assert bound / 3 < float(jnp.max(jnp.abs(values))) <= bound
    assert not np.array_equal(head.hidden.bias[:8], head.output.bias[...])


# --- 7. Where the stable loss parts from BCELoss of a sigmoid


def _bce_loss(logit: jax.Array, label: float) -> jax.Array:
    """`BCELoss(sigmoid(logit))` as torch computes it: each logarithm clamped at -100, and with it its gradient."""
    probability = jax.nn.sigmoid(logit)
    positive = jnp.maximum(jnp.log(probability), -100.0)
    negative = jnp.maximum(jnp.log1p(-probability), -100.0)
    return -(label * positive + (1 - label) * negative)


def _ours(logit: jax.Array, label: int) -> jax.Array:
    return per_example_loss(logit[None, None], jnp.asarray([label], jnp.int32))[0]


def test_a_saturated_sigmoid_in_float32() -> None:
    logit = jnp.float32(20.0)
    value, gradient = jax.value_and_grad(_ours)(logit, 0)
    assert (float(value), float(gradient)) == (pytest.approx(20.0, abs=1e-6), pytest.approx(1.0, abs=1e-6))
    literal = jax.value_and_grad(_bce_loss)(logit, 0.0)
    # What the notebook's form gives: the clamp's 100; the gradient through the clamped branch vanishes.
    assert float(literal[0]) == 100.0
    assert float(jnp.nan_to_num(literal[1])) == 0.0


@pytest.mark.parametrize(("logit", "label"), [(20.0, 0), (-20.0, 1), (3.0, 1), (-0.5, 0), (0.0, 1)])
def test_in_float64_both_forms_agree(logit: float, label: int) -> None:
    with jax.enable_x64(True):
        ours = jax.value_and_grad(_ours)(jnp.float64(logit), label)
        literal = jax.value_and_grad(_bce_loss)(jnp.float64(logit), float(label))
        np.testing.assert_allclose(ours, literal, rtol=1e-6)


def test_validation_uses_the_stable_form_too() -> None:
    result = head_result(np.array([[200.0]], np.float32), np.array([0]), batch_size=32)
    assert result.loss == pytest.approx(200.0)


# --- What needs no picture: the recipe's facts and the numbering of classes


def test_the_recipe_is_the_notebook() -> None:
    recipe = load_recipe("baseline")
    data, model, batches, optimizer = recipe.data, recipe.model, recipe.batches, recipe.optimizer
    assert data.tasks == ("gender", "glasses", "shirt")
    assert data.sources == ("fairface", "glasses", "apparel")
    assert (data.image_size, data.decode, model.weights) == (224, "as_notebook", "imagenet")
    assert (model.trunk, model.trainable, model.batch_norm) == ("resnet18", ("last",), "batch")
    architecture = get_architecture(model.trunk)
    assert groups.trained_modules(architecture.stages, model.trainable, architecture.last) == ("layer4",)
    assert (batches.batch_size, batches.epochs, optimizer.learning_rate) == (32, 5, LEARNING_RATE)
    assert (batches.schedule, optimizer.learning_rate_schedule) == ("sequential", "constant")
    rate = groups.learning_rate_schedule(optimizer, 100)
    assert float(rate(0)) == float(rate(99)) == pytest.approx(LEARNING_RATE)


def test_each_epoch_trains_one_task_after_the_other() -> None:
    class Three:
        labels = {name: np.zeros(10, np.int32) for name in TASKS}  # noqa: RUF012

        def labelled(self, task: str) -> np.ndarray:
            return np.arange(10)

    stream = IndexStream(Three(), tasks=tuple(TASKS), schedule="sequential", batch_size=4, epochs=2, seed=0)
    assert [one.tasks[0] for one in stream.passes] == ["gender", "glasses", "shirt"] * 2
    orders = [np.concatenate([stream[s].indices for s in range(p.first_step, p.end_step)]) for p in stream.passes]
    assert len({tuple(order) for order in orders}) == len(orders)  # each pass is shuffled anew


def test_colours_are_numbered_as_the_data_does_and_the_notebooks_otherwise() -> None:
    assert sorted(SHIRT_CLASSES) == list(SHIRT_CLASSES) == list(TASKS["shirt"].classes)
    assert NOTEBOOK_SHIRT_CLASSES == ("white", "pink", "blue", "black", "red", "yellow", "green", "brown")
    assert sorted(NOTEBOOK_SHIRT_CLASSES) == list(SHIRT_CLASSES)
    assert TASKS["gender"].classes == ("female", "male")
    assert TASKS["glasses"].classes == ("no_glasses", "glasses")


def test_a_head_without_labels_in_a_mixed_batch_stands_still() -> None:
    """Trap 3 in another guise: a loss over no labels has zero gradients, which Adam would take for gradients."""
    start = {"trunk": {"w": jnp.ones(2)}, "gender": {"w": jnp.ones(2)}, "shirt": {"w": jnp.ones(2)}}
    gradient = {name: {"w": jnp.full(2, 0.5)} for name in start}
    counts = {"gender": jnp.asarray(3), "shirt": jnp.asarray(3)}
    moved, states = groups.update(start, gradient, groups.init(start), 0.1, counts)
    still = {**gradient, "shirt": {"w": jnp.zeros(2)}}
    again, later = groups.update(moved, still, states, 0.1, {**counts, "shirt": jnp.asarray(0)})
    np.testing.assert_array_equal(again["shirt"]["w"], moved["shirt"]["w"])
    assert [int(later[name].count) for name in ("trunk", "gender", "shirt")] == [2, 2, 1]
    np.testing.assert_array_equal(later["shirt"].mu["w"], states["shirt"].mu["w"])
    assert not np.array_equal(again["gender"]["w"], moved["gender"]["w"])
