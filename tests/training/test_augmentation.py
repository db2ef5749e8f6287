"""Augmentation: a function of the key alone, half of the pictures, the rest untouched."""

from __future__ import annotations

import jax
import numpy as np

from facefeat_jax.training.augment import mirrored


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
