"""Equality with PyTorch, without PyTorch: what it gave is in the golden files, in float64."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefeat_jax.models import abstract
from facefeat_jax.models.registry import get_architecture, list_models
from parity import golden, jax_side
from parity.cases import multi_task_shapes, multi_task_weights
from parity.trunks import SMALL_TRUNKS
from weights_conversion._records import Record, precision
from weights_conversion.convert import torch_shapes

pytestmark = pytest.mark.long

FILES = Path(__file__).resolve().parent / "files"
TOLERANCE = 1e-9
ACTIVATIONS = 1 + 8 + 1 + 3  # stem, blocks, pooled, heads


def _check(ours: Record, theirs: Record) -> None:
    assert set(ours.values) == set(theirs.values)
    for kind, values in theirs.values.items():
        largest, where = golden.largest_difference(kind, ours.values[kind], values)
        print(f"{kind}: {largest:.1e} ({where})")
        assert largest <= TOLERANCE, f"{kind}: {where} differs by {largest:.1e}"
    assert ours.counters == theirs.counters


@pytest.mark.gpu
@pytest.mark.parametrize("name", golden.FORWARD)
def test_forward_pass_at_224(name: str) -> None:
    theirs, _ = golden.read(FILES / f"{name}.npz")
    assert len(theirs.values["activations"]) == ACTIVATIONS
    weights = multi_task_weights(golden.FORWARD_SEED)
    ours = jax_side.activations(weights, golden.forward_pictures(), training=golden.FORWARD[name])
    _check(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "train_layer4" else pytest.mark.slow) for n in golden.TRAINING]
)
def test_training(name: str) -> None:
    case = golden.TRAINING[name]
    theirs, checksum = golden.read(FILES / f"{name}.npz")
    assert golden.fingerprint(case) == checksum, "the made-up pictures are not those that PyTorch was given"
    assert len(theirs.values["losses"]) == case.num_steps
    assert len(theirs.values["weights"]) == 72
    assert len(theirs.values["statistics"]) == 40
    assert len(theirs.values["first moments"]) == (27 if case.trainable == ("layer4",) else 72)
    _check(jax_side.train(case), theirs)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in ("resnet", "efficientnet") else ()) for n in SMALL_TRUNKS],
)
def test_a_small_trunk_of_each_family(name: str) -> None:
    """Every stage, features and logits in both modes, statistics, gradients, weights after three steps of Adam."""
    theirs, _ = golden.read(FILES / f"trunk_{name}.npz")
    trunk = SMALL_TRUNKS[name]
    stages = {*abstract(trunk.build).STAGES, "pooled", "logits"}
    assert set(theirs.values["evaluation"]) == set(theirs.values["training"]) == stages
    assert len(theirs.values["weights"]) == len(theirs.values["gradients"]) > 20
    _check(trunk.run("jax"), theirs)


# Of torchvision's; a trunk of the project's own has no names there.
MODELS = [name for name in list_models() if get_architecture(name).published]  # now: other tests add one
# One of each table of names; the others are longer or wider.
SOME = {"resnet18", "resnet50", "efficientnet_b0", "vit_b_16"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SOME else pytest.mark.slow) for n in MODELS])
def test_names_and_shapes_of_every_trunk(name: str) -> None:
    theirs = json.loads((FILES / "names.json").read_text())
    assert set(theirs) == set(MODELS)
    ours = torch_shapes(abstract(get_architecture(name).build, num_classes=1000))
    assert golden.names_checksum(ours) == theirs[name]


def test_the_notebooks_case_is_long_enough() -> None:
    assert golden.TRAINING["train_layer4"].num_steps >= 48
    assert len(multi_task_shapes()) == 132


def test_a_small_difference_is_seen() -> None:
    theirs, _ = golden.read(FILES / "forward_eval.npz")
    weights = multi_task_weights(golden.FORWARD_SEED)
    weights["backbone.layer2.1.bn2.bias"] = weights["backbone.layer2.1.bn2.bias"] + 1e-7
    ours = jax_side.activations(weights, golden.forward_pictures(), training=False)
    before, _ = golden.largest_difference(
        "activations",
        {k: v for k, v in ours.values["activations"].items() if k == "layer2.0"},
        {k: v for k, v in theirs.values["activations"].items() if k == "layer2.0"},
    )
    after, _ = golden.largest_difference("activations", ours.values["activations"], theirs.values["activations"])
    assert before <= TOLERANCE < after


def test_float64_does_not_leak() -> None:
    with precision("float64"):
        assert jnp.zeros(1).dtype == np.float64
    assert jnp.zeros(1).dtype == np.float32
    assert not jax.config.jax_enable_x64


def test_files_are_small() -> None:
    files = list(FILES.glob("*.npz"))
    trunks = {f"trunk_{name}" for name in SMALL_TRUNKS}
    assert {path.stem for path in files} == {*golden.FORWARD, *golden.TRAINING, *trunks}
    assert sum(path.stat().st_size for path in files) < 2_000_000
