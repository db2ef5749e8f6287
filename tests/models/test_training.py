"""`train baseline --trunk NAME`: every trunk by the notebook's rules."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from facefeat_jax.commands import train
from facefeat_jax.config import load_recipe
from facefeat_jax.models import abstract
from facefeat_jax.models._dropout import Dropout
from facefeat_jax.models.registry import get_architecture, list_models
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS
from facefeat_jax.training import _groups as groups
from facefeat_jax.training import steps
from weights_conversion.convert import torch_shapes

RECIPE = load_recipe("baseline")
MODELS = list_models()  # now: other tests add one
SIZE, BATCH = 32, 4


def _train_steps(name: str, count: int = 3) -> None:
    """Takes steps on one batch; only the last block and the heads move, statistics everywhere, and the loss falls."""
    architecture = get_architecture(name)
    spec = ModelSpec.following(name, {n: t.classes for n, t in TASKS.items()}, SIZE, RECIPE.data.decode, "random")
    model, stream = spec.abstract(), np.random.RandomState(0)
    for _, node in nnx.iter_graph(model):
        if isinstance(node, Dropout):
            node.rate = 0.0  # the loss of three steps falls, unless what is dropped outweighs them
        if isinstance(node, nnx.Param | nnx.BatchStat):
            # Not drawn one by one: a Vision Transformer has 86 million.
            spread = 1 / np.sqrt(np.prod(node.shape[:-1])) if len(node.shape) > 1 else 0.0
            some = stream.standard_normal(997) * spread if spread else np.ones(1)
            node.set_value(jnp.asarray(np.resize(some, node.shape), node.dtype))
    trained = groups.trained_modules(architecture.stages, RECIPE.model.trainable, architecture.last)
    assert trained and len(trained) < len(model.trunk.STAGES)
    graph, _ = steps.graphdefs(model, trained, freeze_batch_norm=RECIPE.model.batch_norm == "frozen")
    step = steps.make_train_step(
        graph, spec, steps.StepOptions(trained, lambda step: jnp.asarray(1e-4), RECIPE.numerics.dtype)
    )
    state, losses = steps.create_state(model, trained), []
    before = jax.device_get((state.params["trunk"], state.batch_stats))
    images = stream.randint(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8)
    labels = {"shirt": np.arange(BATCH, dtype=np.int32)}
    for _ in range(count):
        state, metrics = step(state, images, labels, np.ones(BATCH, bool), tasks=("shirt",))
        losses.append(float(metrics["shirt"]["loss"]))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    after = jax.device_get((state.params["trunk"], state.batch_stats))
    same = jax.tree.map(np.array_equal, before, after)
    still = {module for module in same[0] if jax.tree.all(same[0][module])}
    assert still == set(same[0]) - set(trained)
    assert not any(jax.tree.leaves(same[1]))


@pytest.mark.parametrize("family", ["resnet", "efficientnet", "vit"])
def test_a_small_one_of_each_family(family: str, tiny_trunks: dict[str, str]) -> None:
    _train_steps(tiny_trunks[family])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"resnet18"}))
def test_every_trunk(name: str) -> None:
    _train_steps(name)


@pytest.mark.slow
def test_the_recipe_with_another_trunk(avatars_dir, tmp_path) -> None:
    """The whole way: the recipe's own fields, a run folder, and a model that is read from it again.

    The tests of training go it with a trunk that is not the recipes' (`small_trunk`); here is a real one.
    """
    config = RECIPE.replace(
        trunk="efficientnet_b0",
        tasks=("glasses",),  # each is a program of its own
        run=tmp_path / "run",
        data_dir=avatars_dir,
        smoke=True,
        epochs=1,
    )
    results = train(config)
    assert set(results["heads"]) == {"glasses"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["trainable"] == ["last"]
    opened = open_run(tmp_path / "run")
    assert (opened.spec.trunk, opened.spec.interpolation) == ("efficientnet_b0", "bilinear")
    assert torch_shapes(opened.model.trunk) == torch_shapes(abstract(get_architecture("efficientnet_b0").build))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nnx.state(opened.model, nnx.Param)))


def test_preprocessing_follows_the_weights() -> None:
    classes = {"glasses": TASKS["glasses"].classes}
    for trunk, weights, interpolation in (
        ("resnet18", "imagenet", "bilinear"),
        ("efficientnet_b0", "imagenet", "bicubic"),
        ("efficientnet_b0", "random", "bilinear"),
        ("efficientnet_b1", "imagenet", "bilinear"),
        ("efficientnet_b1", "efficientnet_b1_rwightman-bac287d4", "bicubic"),
        ("efficientnet_b1", "folder/efficientnet_b1_rwightman-bac287d4.pth", "bicubic"),
        ("efficientnet_b1", "folder/mine.pth", "bilinear"),
        ("vit_b_16", "vit_b_16_swag-9ac1b537", "bicubic"),
    ):
        spec = ModelSpec.following(trunk, classes, 64, "upright", weights)
        assert (spec.interpolation, spec.weights) == (interpolation, weights)
        assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json())), where="") == spec
    older = {name: value for name, value in spec.to_json().items() if name != "interpolation"}
    assert ModelSpec.from_json(older, where="").interpolation == "bilinear"


def test_a_vision_transformer_is_made_for_what_its_weights_are_for() -> None:
    classes = {"glasses": TASKS["glasses"].classes}
    for weights, positions in (("imagenet", 197), ("random", 197), ("vit_b_16_swag-9ac1b537", 577)):
        model = ModelSpec.following("vit_b_16", classes, 64, "upright", weights).abstract()
        assert model.trunk.stem.positions.shape == (1, positions, 768)
        # Other sizes work too.
        graphdef, state = nnx.split(model)
        shape = (2, 64, 96, 3)
        outputs = jax.eval_shape(lambda s, g=graphdef, x=shape: nnx.merge(g, s)(jnp.zeros(x)), state)
        assert outputs["glasses"].shape == (2, 1)
