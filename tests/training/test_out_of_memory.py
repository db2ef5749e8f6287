"""Memory that runs out: what is said."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from facefeat_jax.commands import train
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.programs import Programs
from facefeat_jax.training import _out_of_memory as out_of_memory

MIB = 2**20


def lower(table_rows):
    """Returns a function from a batch size to a program that takes 1 MiB a picture, beside a table."""
    table = jax.ShapeDtypeStruct((max(table_rows, 1), MIB), jnp.uint8)

    @jax.jit
    def step(table, batch):
        return jnp.sort(batch, axis=1)[:, 0] + table[0, 0]

    return lambda size: step.lower(table, jax.ShapeDtypeStruct((size, MIB), jnp.uint8))


def advice(table_rows, limit):
    size = 64
    table = table_rows * MIB
    error = out_of_memory.advise(lower(table_rows), size, table_bytes=table, limit=limit, device="a device")
    assert isinstance(error, UserError) and "\n" not in str(error)
    return str(error)


def test_the_batch_size_that_is_named_fits_and_the_next_does_not():
    """By XLA's figures of the compiled programs."""
    limit = 100 * MIB
    said = advice(0, limit)
    named = int(re.search(r"--batch-size (\d+)", said).group(1))
    assert 1 <= named < 64
    assert out_of_memory.needed_bytes(lower(0)(named)) <= 0.95 * limit < out_of_memory.needed_bytes(lower(0)(2 * named))
    assert "--feed" not in said


def test_the_other_feed_is_named_where_it_leaves_room():
    needed = out_of_memory.needed_bytes(lower(100)(64))
    assert "What would fit: --feed stream" in advice(100, int(1.1 * (needed - 100 * MIB)))
    assert "--feed stream" not in advice(100, int(0.9 * (needed - 100 * MIB)))


def test_where_nothing_fits_that_is_said():
    assert "no batch size does" in advice(0, MIB // 2)


def test_it_is_found_behind_other_errors():
    def raised():
        try:
            try:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4 bytes")
            except jax.errors.JaxRuntimeError as error:
                raise ValueError("a feed failed") from error
        except ValueError as error:
            return error

    assert out_of_memory.is_out_of_memory(raised())
    assert out_of_memory.is_out_of_memory(MemoryError())
    assert not out_of_memory.is_out_of_memory(ValueError("INVALID_ARGUMENT"))


def test_a_run_that_has_no_room_says_what_would_fit(tiny, tmp_path, monkeypatch):
    get = Programs.get

    def no_room(self, key):
        if isinstance(key, tuple) and isinstance(key[-1], int):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
        return get(self, key)

    monkeypatch.setattr(Programs, "get", no_room)
    heads = {"trainable": ("none",), "batch_norm": "frozen", "cache_prefix": True, "feed": "device"}
    with pytest.raises(UserError, match=r"out of memory on cpu.*8 pictures .*--batch-size 4"):
        train(tiny(tmp_path / "run", **heads))
