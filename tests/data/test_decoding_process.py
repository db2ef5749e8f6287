"""Another process that decodes pictures into the cache."""

from __future__ import annotations

import time

import numpy as np
import pytest

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data._decoding_process import DecodingProcess
from facefeat_jax.data.examples import open_halves
from facefeat_jax.data.pixels import DecodedRows, PixelFormat, are_packed, open_rows, stores

PIXELS = PixelFormat(16, "upright")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))


def test_it_fills_the_stores_that_are_opened_here(avatars_dir):
    halves = open_halves(["avatars"], avatars_dir, {}, limit=30)
    with DecodingProcess(["avatars"], avatars_dir, PIXELS, limit=30) as process:
        process.wait(halves, PIXELS)
    for examples in halves:
        assert are_packed(examples, PIXELS)
        numbers = np.arange(len(examples))
        found = open_rows(examples, PIXELS, "on").take(numbers)
        np.testing.assert_array_equal(found, DecodedRows(examples, PIXELS).take(numbers))


def test_what_it_does_not_do_is_done_by_whoever_opens_the_pictures(avatars_dir):
    (training, _) = halves = open_halves(["avatars"], avatars_dir, {})
    with DecodingProcess(["avatars"], avatars_dir, PIXELS) as process:
        process._child.kill()
        process.wait(halves, PIXELS)
    assert not are_packed(training, PIXELS)
    assert len(open_rows(training, PIXELS, "on")) == 44


def test_a_damaged_store_is_left_to_whoever_says_so(avatars_dir, capsys):
    training, validation = halves = open_halves(["avatars"], avatars_dir, {})
    open_rows(training, PIXELS, "on")
    (rows,) = stores(training, PIXELS)
    (row_store.store_folder() / rows.key / row_store.SUMS).unlink()
    with DecodingProcess(["avatars"], avatars_dir, PIXELS) as process:
        process.wait(halves, PIXELS)
    assert are_packed(validation, PIXELS)
    assert not capsys.readouterr().err
    open_rows(training, PIXELS, "on")
    assert "filling it again" in capsys.readouterr().err


def test_it_ends_with_whoever_started_it_and_leaves_nothing_behind(avatars_dir):
    large = PixelFormat(2048, "upright")  # for seconds
    process = DecodingProcess(["avatars"], avatars_dir, large)
    folder = row_store.store_folder()
    until = time.monotonic() + 30
    while not list(folder.glob("*.partial")) and time.monotonic() < until:
        time.sleep(0.01)
    assert list(folder.glob("*.partial"))
    process._child.stdin.close()  # as when the other process is gone
    assert process._child.wait(30) == 1
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    process._child.stdout.close()
