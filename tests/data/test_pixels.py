"""Pictures as rows: decoded once into the cache, by whatever number of threads, and the same as decoded anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from facefeat_jax.data import _row_store as row_store
from facefeat_jax.data import pixels as pixels_module
from facefeat_jax.data.examples import Examples, open_examples
from facefeat_jax.data.images import BadImageError
from facefeat_jax.data.pixels import DecodedRows, PixelFormat, StoredRows, are_packed, open_rows, stores
from facefeat_jax.system.errors import UserError

PIXELS = PixelFormat(16, "upright")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def examples(avatars_dir):
    return open_examples(["avatars"], "train", avatars_dir, {"gender": ("female", "male")})


@pytest.mark.parametrize("threads", [1, 3, None])
def test_packed_pictures_are_the_decoded_ones(examples, monkeypatch, threads):
    monkeypatch.setattr(pixels_module, "_CHUNK_BYTES", 5 * 16 * 16 * 3)  # several chunks, the last one short
    indices = np.array([3, 43, 0, 3, 17])
    decoded = DecodedRows(examples, PIXELS)
    packed = open_rows(examples, PIXELS, "on", threads=threads)
    assert len(packed) == len(decoded) == 44
    assert (packed.shape, packed.dtype) == (decoded.shape, decoded.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(packed.take(indices), decoded.take(indices))
    np.testing.assert_array_equal(packed.take(np.arange(44)), decoded.take(np.arange(44)))


def test_the_second_time_nothing_is_decoded(examples, monkeypatch):
    assert not are_packed(examples, PIXELS)
    first = open_rows(examples, PIXELS, "on").take(np.arange(44))
    assert are_packed(examples, PIXELS)
    monkeypatch.setattr(pixels_module, "decode_resized", None)
    np.testing.assert_array_equal(open_rows(examples, PIXELS, "on").take(np.arange(44)), first)


def test_the_key_changes_with_whatever_the_pixels_depend_on(examples, avatars_dir, monkeypatch):
    few = open_examples(["avatars"], "train", avatars_dir, {"gender": ("female", "male")}, limit=5)
    val = open_examples(["avatars"], "val", avatars_dir, {"gender": ("female", "male")})
    other_pixels = [dataclasses.replace(PIXELS, image_size=17), dataclasses.replace(PIXELS, decode="as_notebook")]
    other_pixels.append(dataclasses.replace(PIXELS, interpolation="bicubic"))
    keys = [stores(examples, pixels)[0].key for pixels in (PIXELS, *other_pixels)]
    keys += [stores(one, PIXELS)[0].key for one in (few, val)]
    split = dataclasses.replace(examples.splits[0], fingerprint="another")
    keys.append(stores(Examples([split], {"gender": ("female", "male")}), PIXELS)[0].key)
    monkeypatch.setattr(pixels_module, "DECODING", 0)
    keys.append(stores(examples, PIXELS)[0].key)
    monkeypatch.setattr(pixels_module.PIL, "__version__", "0.0")
    keys.append(stores(examples, PIXELS)[0].key)
    assert len(set(keys)) == len(keys)


def test_rows_of_several_stores_have_one_numbering(tmp_path):
    parts = [np.arange(3)[:, None], np.arange(10, 14)[:, None], np.arange(20, 21)[:, None]]

    def stored(at: int, values: np.ndarray) -> row_store.Store:
        rows = row_store.Rows(str(at), len(values), values.shape[1:], values.dtype, "numbers", 2)
        return row_store.open_or_fill(tmp_path, rows, lambda ranges: ((r, values[r.start : r.stop]) for r in ranges))

    rows = StoredRows([stored(at, values) for at, values in enumerate(parts)])
    assert len(rows) == 8
    wanted = np.array([7, 0, 3, 2, 6, 3])
    np.testing.assert_array_equal(rows.take(wanted), np.concatenate(parts)[wanted])


def test_a_picture_that_does_not_decode_is_named(examples, monkeypatch):
    read = type(examples).read
    monkeypatch.setattr(type(examples), "read", lambda self, index: b"" if index == 30 else read(self, index))
    with pytest.raises(BadImageError, match=r"avatars/train: 00030\.png: empty file; prepare"):
        open_rows(examples, PIXELS, "on", threads=1)


def test_without_room_auto_decodes_anew_and_says_so(examples, monkeypatch, capsys):
    monkeypatch.setattr(row_store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**20})())
    rows = open_rows(examples, PIXELS, "auto")
    assert isinstance(rows, DecodedRows)
    line = capsys.readouterr().err
    assert "decoded again in every epoch" in line
    assert "16 MiB" in line
    assert len(line.splitlines()) == 1
    with pytest.raises(UserError, match="make room"):
        open_rows(examples, PIXELS, "on")


def test_off_leaves_the_cache_alone(examples, cache):
    assert isinstance(open_rows(examples, PIXELS, "off"), DecodedRows)
    assert not cache.exists()
