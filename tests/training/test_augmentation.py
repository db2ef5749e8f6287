"""Augmentation: a function of the key alone, off by default, and no label is made wrong by it."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from facefeat_jax.config import AugmentationConfig
from facefeat_jax.data.feeds import Batches, Table, take
from facefeat_jax.training.augment import augmented, cropped, erased, mirrored, recoloured

STRONG = {"flip": True, "crop": 0.4, "colour_jitter": 0.6, "erase": 1.0, "rand_augment": 9}
MIXING = {"mixup", "cutmix"}  # of two pictures: test_fine_tuning
HALF = {"flip"}  # those of which chance spares about half of the pictures


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).randint(0, 256, (64, 12, 10, 3)).astype(np.uint8)


def augmentation(**fields):
    """Returns the function from pictures, labels and a key to the changed pictures."""
    return partial(augmented, config=AugmentationConfig(**fields))


def unlabelled(images):
    return {task: np.full(len(images), -1, np.int32) for task in ("gender", "shirt")}


def test_about_half_of_the_pictures_are_mirrored_and_the_others_left_as_they_are():
    images = np.random.RandomState(0).randint(0, 256, (400, 4, 5, 3)).astype(np.uint8)
    found = np.asarray(mirrored(images, jax.random.key(1)))
    kept = (found == images).all(axis=(1, 2, 3))
    turned = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ turned).all()
    assert 150 < turned.sum() < 250
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mirrored(images, jax.random.key(1)))
    assert not np.array_equal(found, mirrored(images, jax.random.key(2)))


def test_nothing_is_done_unless_asked_for(images):
    assert STRONG.keys() | MIXING == {field.name for field in dataclasses.fields(AugmentationConfig)}, (
        "a change is not tested"
    )
    assert AugmentationConfig().changes == []
    assert augmentation()(images, unlabelled(images), jax.random.key(0)) is images
    # The way through float32 and back takes nothing from a picture that nothing happens to.
    same = augmentation(erase=1e-9)(images, unlabelled(images), jax.random.key(0))
    np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize("name", STRONG)
def test_each_change_alone_is_a_function_of_the_key(images, name):
    change = jax.jit(augmentation(**{name: STRONG[name]}))
    labels = unlabelled(images)
    found = change(images, labels, jax.random.key(1))
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    np.testing.assert_array_equal(found, change(images, labels, jax.random.key(1)))
    changed = (np.asarray(found) != images).any(axis=(1, 2, 3)).mean()
    assert (0.3 < changed < 0.7) if name in HALF else changed > 0.9
    assert not np.array_equal(found, change(images, labels, jax.random.key(2)))


def test_both_feeds_change_the_same_pictures_in_the_same_way():
    """Bit for bit, whether the rows are at hand or gathered from a table in the same program."""
    stream = np.random.RandomState(0)
    table = Table(
        stream.randint(0, 256, (40, 32, 32, 3)).astype(np.uint8), {"shirt": np.arange(40, dtype=np.int32) - 20}
    )
    indices, mask = stream.randint(0, 40, (1, 16)).astype(np.int32), np.ones((1, 16), bool)
    change = augmentation(**STRONG)

    @jax.jit
    def changed(table, batches):
        rows, labels, _ = take(table, batches, ("shirt",))
        return change(rows[0], {"shirt": labels["shirt"][0]}, jax.random.key(3))

    labels = {"shirt": table.labels["shirt"][indices]}
    on_host = changed(None, Batches(table.rows[indices], None, labels, mask))
    on_device = changed(jax.tree.map(jax.numpy.asarray, table), Batches(None, indices, {}, mask))
    np.testing.assert_array_equal(on_host, on_device)


def test_pictures_with_a_colour_for_a_label_keep_their_colours(images):
    labels = {"gender": np.full(64, 1, np.int32), "shirt": np.where(np.arange(64) % 2, 3, -1).astype(np.int32)}
    found = np.asarray(augmentation(colour_jitter=0.6)(images, labels, jax.random.key(1)))
    spared = labels["shirt"] >= 0
    np.testing.assert_array_equal(found[spared], images[spared])
    assert (found[~spared] != images[~spared]).any(axis=(1, 2, 3)).all()


def test_colour_follows_pillows_definitions():
    """Which torchvision's are; Pillow cuts decimals off after each of the three."""
    pixels = np.random.RandomState(1).randint(0, 256, (1, 8, 8, 3)).astype(np.float32)
    key = jax.random.key(5)
    brightness, contrast, saturation = np.asarray(
        jax.random.uniform(key, (3, 1, 1, 1, 1), minval=0.5, maxval=1.5)
    ).reshape(3)
    expected = Image.fromarray(pixels[0].astype(np.uint8))
    expected = ImageEnhance.Brightness(expected).enhance(brightness)
    expected = ImageEnhance.Contrast(expected).enhance(contrast)
    expected = ImageEnhance.Color(expected).enhance(saturation)
    found = np.asarray(recoloured(pixels, key, 0.5))[0]
    np.testing.assert_allclose(found, np.asarray(expected, np.float32), atol=5)


def test_a_crop_shows_a_part_of_the_picture_enlarged():
    # A ramp: what is enlarged is a ramp too, whose slope is the share that was kept and whose ends say where it lay.
    height, width = 16, 24
    ramp = np.broadcast_to(np.arange(width, dtype=np.float32) + 0.5, (200, height, width))[..., None]
    found = np.asarray(cropped(ramp, jax.random.key(0), 0.5))[:, 0, :, 0]
    inner = found[:, width // 4 : -width // 4]
    slope = np.diff(inner, axis=1)
    np.testing.assert_allclose(slope, np.broadcast_to(slope[:, :1], slope.shape), atol=1e-3)
    kept = slope[:, 0]
    assert 0.5 - 1e-3 <= kept.min() < 0.6
    assert 0.9 < kept.max() <= 1 + 1e-3
    first = inner[:, 0] - kept * (width // 4 + 0.5)
    assert (first > -1e-2).all()
    assert (first + kept * width < width + 1e-2).all()
    assert first.min() < 1 < first.max()
    assert found.min() >= 0.5 - 1e-3
    assert found.max() <= width


def test_an_erased_rectangle_has_the_colour_and_a_tenth_of_the_picture():
    pixels = np.zeros((500, 40, 40, 3), np.float32)
    found = np.asarray(erased(pixels, jax.random.key(0), 0.5, (0.2, 0.4, 0.6)))
    painted = (found > 0).any(axis=-1)
    np.testing.assert_allclose(found[painted], np.broadcast_to([51, 102, 153], (painted.sum(), 3)), rtol=1e-6)
    hit = painted.any(axis=(1, 2))
    assert 200 < hit.sum() < 300
    shares = painted[hit].mean(axis=(1, 2))
    assert 0.09 < shares.mean() < 0.13
    assert shares.max() < 0.23
    for one in painted[hit]:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
