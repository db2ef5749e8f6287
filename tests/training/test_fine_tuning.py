"""The fine-tuning kit in the step: layer-wise rates, gradual unfreezing, mixup and CutMix with missing labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from facefeat_jax.commands import train
from facefeat_jax.config import AugmentationConfig, OptimizerConfig
from facefeat_jax.models import VisionTransformer, abstract, parameter_groups, parameter_labels
from facefeat_jax.models._values import split_values
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.system.errors import UserError
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import mixed, steps
from facefeat_jax.training._losses import per_example_loss
from facefeat_jax.training.mixing import Mixed, partners


def test_layer_wise_rates_are_those_of_optaxs_multi_transform(small_model) -> None:
    with jax.enable_x64(True):
        model, _ = small_model("float64")
        _, params, _ = split_values(model)
        config = OptimizerConfig(layer_decay=0.6, weight_decay=0.1)
        labels = parameter_labels(model, params)
        by_label = {
            name: optax.adamw(1e-2 * group.lr_scale, eps=1e-8, weight_decay=0.1 * group.decays)
            for name, group in parameter_groups(labels, layer_decay=0.6).items()
        }
        reference = optax.multi_transform(by_label, labels)
        parts = groups.parts(model.trunk, groups.trained_modules(ResNet.STAGES, ("all",)))
        scales, adam = groups.lr_scales(model, params, parts, config.layer_decay), groups.adam(config)

        @jax.jit
        def both(ours, states, expected, state):
            gradient = jax.tree.map(jnp.cos, params)
            ours, states = groups.update(ours, groups.select(gradient, parts), states, 1e-2, {}, adam, scales)
            updates, state = reference.update(gradient, state, expected)
            return ours, states, optax.apply_updates(expected, updates), state

        ours = groups.select(params, parts)
        values = (ours, groups.init(ours, adam), params, reference.init(params))
        for _ in range(3):
            values = both(*values)
        found, expected = groups.replace(params, values[0]), values[2]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), found, expected)


def test_stages_are_unfrozen_from_the_last_to_the_first() -> None:
    vit = abstract(VisionTransformer, 8, 2, 24, 3, 48, image_size=16)
    trained = groups.trained_modules(vit.STAGES, ("all",))
    assert groups.parts(vit, trained, 10) == (
        ("trunk.2", ("block1", "norm"), 10),
        ("trunk.1", ("block0",), 20),
        ("trunk.0", ("stem",), 30),
    )
    assert groups.parts(vit, ("block1", "norm"), 10) == (("trunk.2", ("block1", "norm"), 10),)
    assert groups.parts(vit, ()) == (("trunk", (), 0),)


def test_a_stage_stands_still_before_its_step_and_a_head_without_labels_always(small_model) -> None:
    """With pictures mixed, an average and weight decay as well."""
    model, spec = small_model("float32")
    optimizer = OptimizerConfig(unfreeze_every=2, layer_decay=0.5, weight_decay=0.1, ema=0.5)
    augmentation = AugmentationConfig(mixup=0.4, cutmix=1.0)
    trained, tasks = groups.trained_modules(ResNet.STAGES, ("layer3", "layer4")), ("gender", "shirt")
    graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=False)
    rate = optax.constant_schedule(1e-2)
    options = steps.StepOptions(trained, rate, "float32", optimizer=optimizer, augmentation=augmentation)
    step = steps.make_train_step(graph, spec, options)
    rows = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    labels = {"gender": np.array([0, 1, 1, -1], np.int32), "shirt": np.full(4, -1, np.int32)}
    state = steps.create_state(model, trained, optimizer=optimizer)
    start = jax.device_get(state)
    # Of groups that stand still: no step was counted, and no moment moved.
    for counts in ((0, 0), (0, 0), (1, 0), (2, 0), (3, 1)):
        state, metrics = step(state, rows, labels, np.ones(4, bool), tasks=tasks)
        now = jax.device_get(state)
        found = {name: int(adam[0].count) for name, adam in now.optimizer.items()}
        assert (found["trunk.4"], found["trunk.3"], found["shirt"]) == (*counts, 0)
        assert found["gender"] == int(now.step)
        for name, module in (("trunk.4", "layer4"), ("trunk.3", "layer3")):
            same = jax.tree.map(np.array_equal, now.params["trunk"][module], start.params["trunk"][module])
            assert all(jax.tree.leaves(same)) if found[name] == 0 else not any(jax.tree.leaves(same))
            if found[name] == 0:
                jax.tree.map(np.testing.assert_array_equal, now.optimizer[name], start.optimizer[name])
                jax.tree.map(np.testing.assert_array_equal, now.average[0][name], start.average[0][name])
        for tree in ("layer1", "layer2"):
            jax.tree.map(np.testing.assert_array_equal, now.params["trunk"][tree], start.params["trunk"][tree])
        jax.tree.map(np.testing.assert_array_equal, now.params["heads"]["shirt"], start.params["heads"]["shirt"])
        jax.tree.map(np.testing.assert_array_equal, now.optimizer["shirt"], start.optimizer["shirt"])
    assert int(metrics["gender"]["count"]) == 3 and np.isfinite(float(metrics["gender"]["loss"]))
    assert int(metrics["shirt"]["count"]) == 0 and float(metrics["shirt"]["loss"]) == 0
    assert jax.tree.structure(steps.final_weights(state)[0]) == jax.tree.structure(state.params)


def test_partners_have_labels_for_the_same_tasks() -> None:
    stream = np.random.RandomState(0)
    labels = {
        "gender": np.where(np.arange(64) < 30, 1, -1).astype(np.int32),
        "shirt": np.where((np.arange(64) >= 20) & (np.arange(64) < 63), 2, -1).astype(np.int32),
    }
    order = stream.permutation(64)
    labels = {task: values[order] for task, values in labels.items()}
    mask = np.arange(64) < 60
    drawn = jax.jit(partners)
    found = np.asarray(drawn(labels, mask, jax.random.key(0)))
    assert sorted(found) == list(range(64))  # each picture is the partner of one
    for values in (*[label >= 0 for label in labels.values()], mask):
        np.testing.assert_array_equal(values[found], values)
    kinds = np.stack([labels["gender"] >= 0, labels["shirt"] >= 0, mask])
    for number in range(64):
        alone = (kinds == kinds[:, number : number + 1]).all(axis=0).sum() == 1
        assert (found[number] == number) == alone
    assert not np.array_equal(found, drawn(labels, mask, jax.random.key(1)))


@pytest.mark.parametrize("fields", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_pictures_are_mixed_as_their_share_says(fields) -> None:
    stream = np.random.RandomState(0)
    images = stream.randint(0, 256, (300, 6, 10, 3)).astype(np.uint8)
    labels, mask = {"gender": np.zeros(300, np.int32)}, np.arange(300) < 290
    change = jax.jit(lambda key: mixed(jnp.asarray(images), labels, mask, key, **fields))
    found = change(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, found, change(jax.random.key(0)))
    pictures, partner, share = map(np.asarray, found)
    assert pictures.dtype == np.uint8 and share.dtype == np.float32
    others, weight = images[partner], share[:, None, None, None]
    averages = (np.abs(pictures - (weight * images + (1 - weight) * others)) <= 0.51).all(axis=(1, 2, 3))
    own, theirs = (pictures == images).all(axis=-1), (pictures == others).all(axis=-1)
    cut = (own | theirs).all(axis=(1, 2)) & (np.abs(theirs.mean(axis=(1, 2)) - (1 - share)) < 1e-6)
    assert (averages | cut).all()
    assert averages.mean() > 0.9 if "cutmix" not in fields else cut.mean() > (0.3 if "mixup" in fields else 0.99)
    assert 0.3 < share.mean() < 0.8
    assert 0 <= share.min() < (0.2 if "mixup" in fields else 0.5) and 0.9 < share.max() <= 1


def test_the_loss_of_a_pair_is_the_cross_entropy_with_the_soft_label() -> None:
    stream = np.random.RandomState(0)
    share, partner = stream.uniform(size=6).astype(np.float32), np.array([1, 2, 3, 4, 5, 0])
    pairs = Mixed(jnp.zeros((6, 1, 1, 3), jnp.uint8), jnp.asarray(partner), jnp.asarray(share))
    for outputs in (1, 4):
        logits, labels = stream.standard_normal((6, outputs)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0], np.int32)

        @jax.jit
        def found(logits, labels):
            others = labels[pairs.partner]
            return pairs.loss(per_example_loss(logits, labels), per_example_loss(logits, others)), pairs.leading(labels)

        loss, leading = found(logits, labels)
        soft = share * labels + (1 - share) * labels[partner]  # the probability of class 1; the others have none
        if outputs == 1:
            expected = np.log1p(np.exp(logits[:, 0])) - soft * logits[:, 0]
        else:
            expected = np.log(np.exp(logits).sum(axis=1)) - (1 - soft) * logits[:, 0] - soft * logits[:, 1]
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_array_equal(leading, np.where(share >= 0.5, labels, labels[partner]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_decay": 0.5, "trainable": ("none",)}, "--layer-decay 0.5 .* --trainable none"),
        ({"unfreeze_every": 5, "trainable": ("none",)}, "--unfreeze-every 5 .* --trainable none"),
        ({"unfreeze_every": 12}, "not less than the 12 steps"),
        ({"mixup": 0.2, "batch_size": 1}, "--mixup .* --batch-size is 1"),
        ({"layer_decay": 0.0}, "--layer-decay must be"),
        ({"rand_augment": 31}, "--rand-augment must be"),
        ({"cutmix": float("inf")}, "--cutmix must be"),
        ({"mixup": 0.2, "cache_prefix": True, "batch_norm": "frozen"}, "give --mixup 0, or --no-cache-prefix"),
    ],
)
def test_what_would_have_no_effect_or_makes_no_sense_is_refused(tiny, tmp_path, fields, message) -> None:
    with pytest.raises(UserError, match=message):
        train(tiny(tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()
