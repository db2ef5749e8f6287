"""Digests of a checkpoint's arrays."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def examine(parts: Mapping[str, Any]) -> tuple[bool, dict[str, str]]:
    """Returns whether all numbers are finite, and a digest of each part that changes with any bit of its arrays.

    On the host, to which the arrays go anyway to be written: a checksum for each array, several at a time. A program
    for the device would take longer to compile than many checkpoints take to write.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        examined = {name: list(pool.map(_examine_array, jax.tree.leaves(part))) for name, part in parts.items()}
    digests = {}
    for name, arrays in examined.items():
        digests[name] = f"{zlib.crc32(' '.join(checksum for _, checksum in arrays).encode()):08x}"
    return all(finite for arrays in examined.values() for finite, _ in arrays), digests


def _examine_array(array: jax.Array | np.ndarray) -> tuple[bool, str]:
    values = np.ascontiguousarray(array)
    is_float = jnp.issubdtype(values.dtype, jnp.floating)
    checksum = zlib.crc32(values.reshape(-1).view(np.uint8).data)
    return bool(np.isfinite(values).all()) if is_float else True, f"{values.dtype} {values.shape} {checksum:08x}"
