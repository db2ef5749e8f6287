"""Pictures are decoded by another process before the first step, where that pays."""

from __future__ import annotations

import json

import pytest

from facefeat_jax.commands import train
from facefeat_jax.data import pixels
from facefeat_jax.training import _decoding as decoding
from facefeat_jax.training.loop import training


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("at_once", [False, True])
def test_a_training_reads_what_the_process_decoded(
    tiny, tmp_path, monkeypatch, trained_run, no_pages, empty_cache, at_once
):
    monkeypatch.setattr(decoding, "_LEAST", 64)
    monkeypatch.setattr(pixels, "decode_resized", lambda *_, **__: pytest.fail("decoded in this process"))
    config = tiny(tmp_path / "run")
    if at_once:
        with decoding.decode_at_once(config) as process, training(config, process):
            assert process is not None
    else:
        train(config)
    found, expected = (
        json.loads((run / "results.json").read_text())["history"] for run in (tmp_path / "run", trained_run)
    )
    assert found == expected


@pytest.mark.parametrize(
    ("fields", "ahead", "at_once"),
    [
        ({}, True, True),
        ({"weights": "imagenet"}, True, False),
        ({"resume": True}, True, False),
        ({"packed": "off"}, False, False),
        ({"batch_norm": "frozen", "trainable": ("layer4",), "cache_prefix": True}, False, False),
        ({"limit": 31}, False, False),
        ({"distributed": True}, False, False),
    ],
)
def test_where_it_gains_something(tiny, tmp_path, monkeypatch, empty_cache, fields, ahead, at_once):
    monkeypatch.setattr(decoding, "_LEAST", 64)
    config = tiny(tmp_path / "run", **fields)
    with decoding.decode_ahead(config, pixels.PixelFormat(8, "upright")) as process:
        assert (process is not None) == ahead
    with decoding.decode_at_once(config) as process:
        assert (process is not None) == at_once


def test_few_pictures_are_decoded_here(tiny, tmp_path, empty_cache):
    with decoding.decode_at_once(tiny(tmp_path / "run")) as process:
        assert process is None
