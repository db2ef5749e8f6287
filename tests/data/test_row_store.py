"""Stores of rows: filled once, never half there, and what is spoilt is found when it is read, and made again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data._row_store import NoRoomError, Rows, open_or_fill
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError

COUNT, CHUNK = 50, 4


def described(**changes) -> Rows:
    fields = dict(key="abc", count=COUNT, shape=(3, 2), dtype=np.dtype(np.uint8), what="numbers", chunk=CHUNK)
    return Rows(**{**fields, **changes})


def values(one: range) -> np.ndarray:
    return np.arange(one.start * 6, one.stop * 6).reshape(-1, 3, 2).astype(np.uint8)


class Producer:
    """Makes rows; notes which, and fails where it is told to."""

    def __init__(self, fail_at: int | None = None):
        self.made: list[int] = []
        self._fail_at = fail_at

    def __call__(self, ranges: list[range]) -> Iterator[tuple[range, np.ndarray]]:
        for one in ranges:
            if self._fail_at in one:
                raise KeyboardInterrupt
            self.made += one
            yield one, values(one)


def never(ranges):
    raise AssertionError("it is there already")


def read(store: row_store.Store) -> np.ndarray:
    return store.take(np.arange(len(store)))


def test_rows_are_made_once_and_mapped_afterwards(tmp_path):
    producer = Producer()
    found = open_or_fill(tmp_path, described(), producer)
    np.testing.assert_array_equal(read(found), values(range(COUNT)))
    assert producer.made == list(range(COUNT))
    again = open_or_fill(tmp_path, described(), never)
    np.testing.assert_array_equal(read(again), read(found))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc", "abc.lock"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_other_types_keep_every_bit(tmp_path, dtype):
    import ml_dtypes  # noqa: F401 - makes numpy know bfloat16

    rows = described(dtype=np.dtype(dtype))
    wanted = np.random.RandomState(0).standard_normal((COUNT, 3, 2)).astype(rows.dtype)
    open_or_fill(tmp_path, rows, lambda ranges: ((one, wanted[one.start : one.stop]) for one in ranges))
    np.testing.assert_array_equal(read(open_or_fill(tmp_path, rows, never)), wanted)


def test_nothing_is_left_of_a_fill_that_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        open_or_fill(tmp_path, described(), Producer(fail_at=21))
    assert [path.name for path in tmp_path.iterdir()] == ["abc.lock"]
    np.testing.assert_array_equal(read(open_or_fill(tmp_path, described(), Producer())), values(range(COUNT)))


def _fill_until_killed(root, ready) -> None:
    def produce(ranges):
        for one in ranges:
            if one.start >= 5 * CHUNK:
                ready.send(None)
                signal.pause()
            yield one, values(one)

    open_or_fill(root, described(), produce)


def test_what_a_killed_process_leaves_is_not_taken_for_whole(tmp_path):
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_fill_until_killed, args=(tmp_path, sender))
    process.start()
    assert receiver.poll(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / "abc.partial").exists() and not (tmp_path / "abc").exists()
    np.testing.assert_array_equal(read(open_or_fill(tmp_path, described(), Producer())), values(range(COUNT)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc", "abc.lock"]


def spoil(folder, name: str, at: int) -> None:
    content = bytearray((folder / name).read_bytes())
    content[at] ^= 16
    (folder / name).write_bytes(content)


@pytest.mark.parametrize("at", [0, 6 * 21 + 3, 6 * COUNT - 1])
def test_a_spoilt_row_is_made_again_when_it_is_read(tmp_path, capsys, at):
    open_or_fill(tmp_path, described(), Producer())
    spoil(tmp_path / "abc", "rows.bin", at)
    producer, row = Producer(), at // 6
    store = open_or_fill(tmp_path, described(), producer)
    others = np.array([number for number in range(COUNT) if number != row])
    np.testing.assert_array_equal(store.take(others), values(range(COUNT))[others])
    assert producer.made == [] and capsys.readouterr().err == ""
    wanted = np.array([row, 2, row])
    np.testing.assert_array_equal(store.take(wanted), values(range(COUNT))[wanted])
    first = row - row % CHUNK
    assert producer.made == list(range(first, min(first + CHUNK, COUNT)))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"abc (numbers) is damaged (row {row})" in line
    # It was mended on disk too: the next process finds nothing wrong.
    np.testing.assert_array_equal(read(open_or_fill(tmp_path, described(), never)), values(range(COUNT)))


def test_a_store_that_is_spoilt_throughout_is_reported_once(tmp_path, capsys):
    open_or_fill(tmp_path, described(), Producer())
    (tmp_path / "abc" / "rows.bin").write_bytes(bytes(6 * COUNT))
    store = open_or_fill(tmp_path, described(), Producer())
    threads = [threading.Thread(target=read, args=(store,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(read(store), values(range(COUNT)))
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["rows.json", "rows.crc"])
def test_any_flipped_bit_in_what_rows_are_compared_with_is_found(tmp_path, capsys, name):
    open_or_fill(tmp_path, described(), Producer())
    for at in range((tmp_path / "abc" / name).stat().st_size):
        spoil(tmp_path / "abc", name, at)
        np.testing.assert_array_equal(read(open_or_fill(tmp_path, described(), Producer())), values(range(COUNT)))


def test_two_writers_take_turns(tmp_path, capsys):
    producers = [Producer(), Producer()]
    threads = [threading.Thread(target=open_or_fill, args=(tmp_path, described(), one)) for one in producers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(producer.made) for producer in producers) == [0, COUNT]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: os.truncate(folder / "rows.bin", 17), "is cut short (17 bytes of 300)"),
        (lambda folder: (folder / "rows.json").write_text('{"format": 1, "key": "abc"}'), "by another version"),
        (lambda folder: (folder / "rows.json").write_text("[]"), "can't be read"),
        (lambda folder: (folder / "rows.crc").unlink(), "is not complete"),
        (lambda folder: (folder / "rows.json").write_text("{"), "can't be read"),
        (lambda folder: (folder / "rows.bin").unlink(), "is not complete"),
        (
            lambda folder: (folder / "rows.json").write_text(
                json.dumps(checked_json.with_digest({**described(count=49).to_json(), "sums": 0}))
            ),
            "holds something else",
        ),
    ],
)
def test_a_store_that_is_not_whole_is_filled_again_and_that_is_said_in_one_line(tmp_path, capsys, damage, said):
    open_or_fill(tmp_path, described(), Producer())
    damage(tmp_path / "abc")
    np.testing.assert_array_equal(read(open_or_fill(tmp_path, described(), Producer())), values(range(COUNT)))
    line = capsys.readouterr().err
    assert said in line
    assert len(line.splitlines()) == 1


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(row_store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**20})())
    with pytest.raises(NoRoomError, match=r"needs 16 MiB for decoded pictures, 1 MiB are free; make room"):
        row_store.require_room(tmp_path / "rows", [described()])
    assert not (tmp_path / "rows").exists()
    row_store.require_room(tmp_path, [])


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_there(tmp_path, monkeypatch):
    pwrite, seen = os.pwrite, []

    def full(descriptor, data, offset):
        seen.append(offset)
        if len(seen) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(row_store.os, "pwrite", full)
    with pytest.raises(NoRoomError, match=r"no room left .*; make room and start again"):
        open_or_fill(tmp_path, described(), Producer())
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["abc.lock"]
    np.testing.assert_array_equal(read(open_or_fill(tmp_path, described(), Producer())), values(range(COUNT)))


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder with FACEFEAT_CACHE"):
        open_or_fill(tmp_path / "file" / "rows", described(), Producer())


def test_a_store_without_rows_is_empty(tmp_path):
    assert read(open_or_fill(tmp_path, described(count=0), Producer())).shape == (0, 3, 2)
