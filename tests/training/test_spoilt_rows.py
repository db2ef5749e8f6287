"""Decoded pictures and outputs of frozen stages that a disk has spoilt are never trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facefeat_jax.commands import train

pytestmark = pytest.mark.long

HEADS = {"epochs": 1, "limit": 20, "tasks": ("shirt",), "batch_norm": "frozen", "trainable": ("none",)}
PREFIX = {"feed": "stream", "cache_prefix": True}


def weights_of(run: Path) -> list:
    results = json.loads((run / "results.json").read_text())
    return [results["heads"], results["history"]]


@pytest.mark.parametrize("fields", [{"feed": "stream"}, {"feed": "device"}, PREFIX], ids=["stream", "device", "prefix"])
def test_a_run_from_spoilt_rows_equals_one_from_good_ones(fields, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    train(tiny(tmp_path / "good", **HEADS, **fields))
    stores = list((tmp_path / "cache").glob("rows/*/rows.bin"))
    assert len(stores) == 2
    for store in stores:
        content = bytearray(store.read_bytes())
        for at in range(0, len(content), 1024):
            content[at] ^= 0xFF
        store.write_bytes(content)
    capsys.readouterr()
    train(tiny(tmp_path / "spoilt", **HEADS, **fields))
    assert weights_of(tmp_path / "spoilt") == weights_of(tmp_path / "good")
    assert sum("is damaged" in line for line in capsys.readouterr().err.splitlines()) == 2
