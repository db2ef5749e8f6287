"""The identity of pictures: the same wherever it comes from."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from facefeat_jax.data._digests import digests_of
from facefeat_jax.data.dataset import open_split


def test_digests_are_those_of_the_files_also_where_none_are_stored(avatars_dir, tmp_path, monkeypatch):
    split = open_split("avatars", "val", avatars_dir)
    wanted = [int(hashlib.sha256(split.read(number)).hexdigest()[:16], 16) for number in range(len(split))]
    np.testing.assert_array_equal(digests_of(split), np.array(wanted, np.uint64))
    earlier = dataclasses.replace(split, digests=None)
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    np.testing.assert_array_equal(digests_of(earlier), split.digests)
    monkeypatch.setattr(type(split), "read", None)  # the second time nothing is read
    np.testing.assert_array_equal(digests_of(earlier), split.digests)


def test_a_cache_that_can_not_be_written_is_no_reason_to_stop(avatars_dir, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "file" / "cache"))
    split = open_split("avatars", "val", avatars_dir)
    np.testing.assert_array_equal(digests_of(dataclasses.replace(split, digests=None)), split.digests)
