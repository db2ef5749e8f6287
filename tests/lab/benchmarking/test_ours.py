"""Our side of the comparison: the count of operations, and what it adds to the stages of `facefeat benchmark`."""

from __future__ import annotations

import pytest

from benchmarking.flops import forward_flops, step_flops
from benchmarking.ours import OPERATIONS
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS

ALL = tuple(module for stage in ResNet.STAGES.values() for module in stage)
HEAD = 2 * (512 * 256 + 256)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return ModelSpec("resnet18", {n: t.classes for n, t in TASKS.items()}, 224, "as_notebook", "random")


def test_the_count_is_resnet18s(spec):
    """1.814 billion multiply-adds, as published for torchvision's without its classifier (1.8145 with)."""
    assert forward_flops(spec, ("gender",)) == 2 * 1_813_561_344 + HEAD


def test_gradients_cost_once_more_for_each_operand_they_reach(spec):
    forward, stem, head = forward_flops(spec, ("gender",)), 2 * 118_013_952, HEAD
    # With heads alone, the first layer's inputs need no gradient: 2 x 256 operations once more, its weights all.
    heads_only = step_flops(spec, ("gender",), ())
    assert heads_only == forward + head + 2 * 256
    # All trained: each product three times, but that no gradient goes into the pictures.
    assert step_flops(spec, ("gender",), ALL) == 3 * forward - stem
    # layer4 (411 million multiply-adds): its weights; its inputs but those of its first convolution and its shortcut.
    conv, first, shortcut = 2 * 115_605_504, 2 * 57_802_752, 2 * 6_422_528
    layer4 = 3 * conv + first + shortcut
    assert step_flops(spec, ("gender",), ("layer4",)) == forward + layer4 + 3 * conv + 2 * head
    # From layer3's outputs on: the same without what lies before.
    from_cache = step_flops(spec, ("gender",), ("layer4",), after="layer3")
    assert from_cache == 2 * layer4 + 3 * conv + 3 * head


@pytest.fixture
def settings(avatars_dir, tmp_path, monkeypatch) -> dict:
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path))
    return {
        "data_dir": str(avatars_dir),
        "sources": ["avatars"],
        "image_size": 32,
        "batch": 8,
        "task": "gender",
        "precision": "float32",
        "trainable": "none",
        "round_seconds": 0.01,
    }


def test_feed_memory_is_this_processes(settings):
    measured = OPERATIONS["feed_memory"](settings | {"batches": 12})
    assert 50 * 2**20 < measured.round()["feed_anonymous_bytes"] < 20 * 2**30


def test_operations_of_a_step_are_counted(settings):
    measured = OPERATIONS["step"](settings | {"after": "layer4", "batch_norm": "frozen"})
    assert measured.about["flops_per_image"] >= HEAD and measured.round()["seconds"] > 0
