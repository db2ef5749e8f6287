"""Picture files that are read by several threads share memory from before they are read."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from facefeat_jax.data import examples as examples_module
from facefeat_jax.data._budget import FILES, MAX_FILE_BYTES, Budget
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.examples import open_examples
from facefeat_jax.data.pixels import PixelFormat
from facefeat_jax.prediction import _inputs as inputs
from facefeat_jax.prediction._inputs import content_of
from facefeat_jax.system.errors import UserError


class Inside:
    """Counts how many threads are inside at a time."""

    def __init__(self) -> None:
        self.now, self.most = 0, 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.now -= 1


def test_a_share_can_be_made_smaller():
    budget = Budget(100)
    with budget.holding(80) as keep:
        keep(30)
        with budget.holding(70) as other:
            other(90)  # no more than was held
            assert budget._held == 100
        keep(0)
        assert budget._held == 0
    assert budget._held == 0
    with pytest.raises(KeyError), budget.holding(500):
        assert budget._held == 100
        raise KeyError
    assert budget._held == 0 and FILES._most == MAX_FILE_BYTES


@pytest.mark.parametrize(("size", "most"), [(100_000, 2), (10_000, 4)])
def test_predict_reads_no_more_than_there_is_room_for(tmp_path, monkeypatch, size, most):
    monkeypatch.setattr(inputs, "FILES", Budget(250_000))
    paths = [tmp_path / str(number) for number in range(12)]
    for path in paths:
        path.write_bytes(bytes(size))
    inside = Inside()

    def read(path) -> None:
        with content_of(path) as data, inside:
            assert len(data) == size

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, paths))
    assert inside.most <= most and (inside.most > 2) == (most == 4)


def test_processes_share_memory_too(tmp_path):
    """Four processes that each hold two thirds of what there is: one after the other."""
    code = f"""
        import time
        from pathlib import Path
        from facefeat_jax.data._budget import Budget
        budget, log = Budget(3 * 2**23), Path({str(tmp_path / "log")!r})
        budget.share(Path({str(tmp_path / "count")!r}))
        for _ in range(3):
            with budget.holding(2**24):
                with log.open("a") as file: file.write("+")
                time.sleep(0.005)
                with log.open("a") as file: file.write("-")
    """
    children = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert (tmp_path / "log").read_text() == "+-" * 12 and (tmp_path / "count").read_text() == "0"


def test_training_reads_no_more_than_there_is_room_for(avatars_dir, monkeypatch):
    """How large a record is shows when it is read: until then, room for the largest of its data set is held."""
    (summary,) = avatars_dir.glob("avatars/*/summary.json")
    examples = open_examples(["avatars"], "train", avatars_dir, {"gender": ("female", "male")})
    largest = json.loads(summary.read_text())["largest_bytes"]
    assert largest >= max(len(examples.read(index)) for index in range(len(examples)))
    assert examples.splits[0].largest_bytes == largest
    monkeypatch.setattr(examples_module, "FILES", Budget(250_000))
    inside = Inside()
    read = type(examples).read

    def counted(self, index: int) -> bytes:
        with inside:
            return read(self, index)

    monkeypatch.setattr(type(examples), "read", counted)
    pixels = PixelFormat(16, "upright")
    for size, most in ((100_000, 2), (10_000, 4)):
        examples.splits = [dataclasses.replace(examples.splits[0], largest_bytes=size)]
        inside.most = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda index: pixels.read(examples, index), range(12)))
        assert inside.most <= most and (inside.most > 2) == (most == 4)


@pytest.mark.parametrize("stated", [None, "x", float("inf")])
def test_a_summary_that_states_no_number_is_reported(stated, avatars_dir, tmp_path):
    shutil.copytree(avatars_dir, tmp_path / "data")
    (summary,) = (tmp_path / "data").glob("avatars/*/summary.json")
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "largest_bytes": stated}))
    with pytest.raises(UserError, match=r"not complete .*prepare it again"):
        open_split("avatars", "train", tmp_path / "data")
