"""The streaming feed: the index stream's pictures in its order, wherever it starts and however many threads decode."""

from __future__ import annotations

import numpy as np
import pytest

from facefeat_jax.data import feeds
from facefeat_jax.data.examples import open_examples
from facefeat_jax.data.images import BadImageError, decode_resized
from facefeat_jax.data.index_stream import IndexStream
from facefeat_jax.errors import UserError
from facefeat_jax.tasks import TASKS

CLASSES = {name: task.classes for name, task in TASKS.items()}


@pytest.fixture(scope="module")
def examples(avatars_dir):
    return open_examples(["avatars"], "train", avatars_dir, CLASSES)


@pytest.fixture(scope="module")
def batches(examples):
    return IndexStream(examples, tasks=tuple(TASKS), schedule="mixed", batch_size=8, epochs=2, seed=1)


def feed(batches, examples, **options):
    return list(feeds.stream(batches, examples, image_size=16, decode="upright", **options))


def test_batches_hold_the_pictures_and_labels_of_their_indices(batches, examples):
    for batch, wanted in zip(feed(batches, examples), batches, strict=True):
        assert batch.images.shape == (8, 16, 16, 3)
        assert batch.images.dtype == np.uint8
        np.testing.assert_array_equal(batch.indices, wanted.indices)
        for row, index in enumerate(wanted.indices):
            expected = decode_resized(examples.read(int(index)), 16, "upright")
            np.testing.assert_array_equal(batch.images[row], expected)
            for task in TASKS:
                assert batch.labels[task][row] == (examples.labels[task][index] if wanted.mask[row] else -1)


def test_threads_and_the_starting_step_change_nothing(batches, examples):
    whole = feed(batches, examples, threads=1, prefetch=1)
    for start, threads in ((0, 4), (5, 3), (11, 2)):
        part = feed(batches, examples, start=start, threads=threads)
        assert len(part) == len(whole) - start
        for one, other in zip(part, whole[start:], strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.indices, other.indices)


def test_a_picture_that_does_not_decode_is_named(batches, examples, monkeypatch):
    read = type(examples).read
    victim = int(batches[3].indices[2])
    monkeypatch.setattr(type(examples), "read", lambda self, index: b"" if index == victim else read(self, index))
    name = examples.name(victim).removeprefix("avatars/train: ")
    with pytest.raises(BadImageError, match=f"avatars/train: {name}: empty file; prepare the data set again"):
        feed(batches, examples)


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
