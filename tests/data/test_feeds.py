"""The feeds: the index stream's pictures in its order, the same from either feed, wherever it starts."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from facefeat_jax.data import feeds
from facefeat_jax.data.examples import open_examples
from facefeat_jax.data.feeds import Feed, Layout, fill_table, take
from facefeat_jax.data.images import BadImageError, decode_resized
from facefeat_jax.data.index_stream import IndexStream
from facefeat_jax.data.pixels import DecodedRows, PixelFormat, read_ahead
from facefeat_jax.data.placement import Placement
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import TASKS
from facefeat_jax.training.data import choose_feed

CLASSES = {name: task.classes for name, task in TASKS.items()}
PIXELS = PixelFormat(16, "upright")


@pytest.fixture(scope="module")
def examples(avatars_dir):
    return open_examples(["avatars"], "train", avatars_dir, CLASSES)


@pytest.fixture(scope="module")
def stream(examples):
    return IndexStream(examples, tasks=tuple(TASKS), schedule="mixed", batch_size=8, epochs=2, seed=1)


def calls_of(stream, steps_per_call=1, start=0):
    return [call for one in stream.passes for call in one.calls(steps_per_call) if call.first_step >= start]


def streamed(stream, examples, calls, **options):
    feed = Feed(examples, Placement(), DecodedRows(examples, PIXELS), None, **options)
    return [jax.device_get(batches) for batches in feed(stream, calls)]


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_batches_hold_the_pictures_and_labels_of_their_indices(stream, examples, steps_per_call):
    calls = calls_of(stream, steps_per_call)
    for call, batches in zip(calls, streamed(stream, examples, calls), strict=True):
        assert batches.rows.shape == (call.num_steps, 8, 16, 16, 3)
        assert batches.rows.dtype == np.uint8
        for number, step in enumerate(range(call.first_step, call.end_step)):
            wanted = stream[step]
            np.testing.assert_array_equal(batches.mask[number], wanted.mask)
            for row, index in enumerate(wanted.indices):
                expected = decode_resized(examples.read(int(index)), 16, "upright")
                np.testing.assert_array_equal(batches.rows[number, row], expected)
                for task in TASKS:
                    label = examples.labels[task][index] if wanted.mask[row] else -1
                    assert batches.labels[task][number, row] == label


@pytest.mark.gpu
@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_both_feeds_give_the_same_batches_bit_for_bit(stream, examples, steps_per_call):
    placement = Placement()
    layout = Layout("device", len(examples), PIXELS.shape, np.dtype(np.uint8), tuple(TASKS), placement)
    read = partial(read_ahead, DecodedRows(examples, PIXELS))
    table = fill_table(read, examples, layout, title="to the device", chunk=20)  # 20, 20 and 4 pictures
    calls = calls_of(stream, steps_per_call)
    gather = jax.jit(lambda batches: take(table, batches, tuple(TASKS)))
    device = [gather(batches) for batches in Feed(examples, placement, None, table)(stream, calls)]
    host = streamed(stream, examples, calls)
    for (rows, labels, mask), expected in zip(device, host, strict=True):
        np.testing.assert_array_equal(rows, expected.rows)
        np.testing.assert_array_equal(mask, expected.mask)
        for task in TASKS:
            np.testing.assert_array_equal(labels[task], expected.labels[task])


def test_a_table_is_the_same_wherever_it_is_put_together():
    """On CPU it is the host, on other devices the device; parts of it may be longer than their rows."""
    rows, placement = np.arange(14, dtype=np.float32).reshape(7, 2), Placement()
    parts = [(0, 3, rows[:3]), (3, 3, jax.device_put(rows[3:7])), (6, 1, rows[6:])]
    for some in (parts, []):
        host, device = (
            together(iter(some), jax.ShapeDtypeStruct((8, 2), np.float32), 3, placement)
            for together in (feeds._on_host, feeds._on_device)
        )
        np.testing.assert_array_equal(host, [*rows, [0, 0]] if some else np.zeros((8, 2)))
        np.testing.assert_array_equal(host, device)
        assert host.sharding.is_equivalent_to(device.sharding, 2)


def test_what_is_compiled_for_is_what_comes(stream, examples):
    placement = Placement()
    call = calls_of(stream, 4)[0]
    layout = Layout("stream", len(examples), PIXELS.shape, np.dtype(np.uint8), tuple(TASKS), placement)
    feed = Feed(examples, placement, DecodedRows(examples, PIXELS), None)
    described, found = layout.batches(call, 8), next(feed(stream, [call]))
    assert jax.tree.structure(described) == jax.tree.structure(found)
    for one, other in zip(jax.tree.leaves(described), jax.tree.leaves(found), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (other.shape, other.dtype, other.sharding)


def test_threads_and_the_starting_step_change_nothing(stream, examples):
    whole = streamed(stream, examples, calls_of(stream), threads=1, prefetch=1)
    for start, threads in ((0, 4), (5, 3), (11, 2)):
        part = streamed(stream, examples, calls_of(stream, start=start), threads=threads)
        assert len(part) == len(whole) - start
        for one, other in zip(part, whole[start:], strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_picture_that_does_not_decode_is_named(stream, examples, monkeypatch):
    read = type(examples).read
    victim = int(stream[3].indices[2])
    monkeypatch.setattr(type(examples), "read", lambda self, index: b"" if index == victim else read(self, index))
    name = examples.name(victim).removeprefix("avatars/train: ")
    with pytest.raises(BadImageError, match=f"avatars/train: {name}: empty file; prepare the data set again"):
        streamed(stream, examples, calls_of(stream))


class _Accelerator:
    platform, device_kind = "gpu", "Imaginary"

    def __init__(self, free: int):
        self.free = free

    def memory_stats(self):
        return {"bytes_limit": self.free + 2**30, "bytes_in_use": 2**30}


class _Placed:
    def __init__(self, free: int, num_devices: int = 1):
        self.device, self.num_devices = _Accelerator(free), num_devices


def test_auto_takes_the_device_where_the_pictures_fit_and_says_why():
    row = 224 * 224 * 3
    name, why = choose_feed("auto", [41_796, 11_875], row, _Placed(80 * 2**30))
    assert name == "device"
    assert why == "the pictures take 7.52 GiB, 80.00 GiB are free on Imaginary, of which they may take 60%"
    assert choose_feed("auto", [41_796, 11_875], row, _Placed(12 * 2**30))[0] == "stream"
    assert choose_feed("auto", [41_796, 11_875], row, _Placed(12 * 2**30, num_devices=4))[0] == "device"
    assert choose_feed("stream", [1], row, _Placed(80 * 2**30)) == ("stream", "as asked")


def test_a_device_without_room_is_refused_with_what_is_needed():
    with pytest.raises(
        UserError, match=r"does not fit: the pictures take 7\.52 GiB, 12\.00 GiB are free .* --feed stream"
    ):
        choose_feed("device", [53_671], 224 * 224 * 3, _Placed(12 * 2**30))


def test_on_cpu_only_small_tables_are_copied():
    assert choose_feed("auto", [100], 2048, Placement())[0] == "device"
    assert choose_feed("auto", [53_671], 224 * 224 * 3, Placement())[0] == "stream"
    assert choose_feed("device", [53_671], 224 * 224 * 3, Placement())[0] == "device"


def test_labels_are_matched_by_class_name(avatars_dir, examples):
    turned = open_examples(["avatars"], "train", avatars_dir, {"gender": ("male", "female")})
    np.testing.assert_array_equal(turned.labels["gender"], 1 - examples.labels["gender"])
    with pytest.raises(UserError, match="gender of data set 'avatars' has classes that the model does not have: male"):
        open_examples(["avatars"], "train", avatars_dir, {"gender": ("female", "other")})
    with pytest.raises(UserError, match=r"no picture of avatars \(train\) has a label for 'hat'"):
        open_examples(["avatars"], "train", avatars_dir, {"hat": ("no", "yes")})


def test_a_limit_takes_pictures_spread_over_the_split(avatars_dir):
    few = open_examples(["avatars"], "train", avatars_dir, CLASSES, limit=5)
    names = [few.name(index) for index in range(len(few))]
    assert names == [f"avatars/train: {row:05}.png" for row in (0, 10, 21, 32, 43)]
