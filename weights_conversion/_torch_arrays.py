"""From the descriptions of tensors in torch's files to arrays."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping

import numpy as np

from weights_conversion._torch_objects import CUT_SHORT, Storage, Tensor, UnreadableError

# Tensors may share a storage or repeat its elements, so what is returned can be larger than the file. A small file must
# not ask for all memory, though: 16 times its size, and a megabyte for tiny files, is more than weights ever need.
_GROWTH, _SLACK = 16, 1 << 20
MOST_BYTES = 4 << 30
"""What the tensors of a file may take: the largest trunk here has 1.2 GiB in float32."""

Elements = Callable[[Storage], memoryview]


def read_run(data: memoryview, at: int, itemsize: int) -> tuple[memoryview, int]:
    """Returns a storage of the two older formats (how many elements, then the elements), and the position after it."""
    if at + 8 > len(data):
        raise UnreadableError("it ends before its last storage", CUT_SHORT)
    (count,) = struct.unpack_from("<q", data, at)
    if count < 0:
        raise UnreadableError("it states a negative size")
    end = at + 8 + count * itemsize
    if end > len(data):
        raise UnreadableError(f"it ends {end - len(data):,} bytes before the end of a storage", CUT_SHORT)
    return data[at + 8 : end], end


def lookup(runs: Mapping[str, memoryview]) -> Elements:
    """Returns a function that gives the bytes of a storage."""

    def elements(wanted: Storage) -> memoryview:
        if wanted.key not in runs:
            raise UnreadableError("it refers to a storage that it does not hold")
        return runs[wanted.key]

    return elements


def to_arrays(tensors: Mapping[str, Tensor], elements: Elements, order: str, size: int) -> dict[str, np.ndarray]:
    """Returns the arrays of tensors.

    Args:
        tensors: By name.
        elements: Gives the bytes of a storage.
        order: Of these bytes, `little` or `big`.
        size: Of the file, in bytes.

    Raises:
        UnreadableError: The file does not hold what they describe.
    """
    budget = min(_GROWTH * size + _SLACK, MOST_BYTES)
    result: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        budget -= math.prod(tensor.shape) * tensor.dtype.itemsize
        if budget < 0:
            raise UnreadableError("its tensors claim far more elements than the file holds, or than any model here has")
        try:
            result[name] = _array(tensor, elements(tensor.storage), order)
        except UnreadableError as error:
            raise UnreadableError(f"tensor {name[:200]!r}: {error.reason}", error.remedy) from None
    return result


def _array(tensor: Tensor, run: memoryview, order: str) -> np.ndarray:
    """Copies a tensor out of the bytes of its storage: an owned, native, C-contiguous array."""
    storage, dtype = tensor.storage, tensor.dtype
    start, width = (
        (storage.first * storage.dtype.itemsize, storage.dtype.itemsize) if storage.dtype else (storage.first, 1)
    )
    if start + storage.count * width > len(run):
        raise UnreadableError("its storage is longer than what the file holds of it", CUT_SHORT)
    count = storage.count * width // dtype.itemsize
    number = math.prod(tensor.shape)
    if number:
        reach = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True)) + 1
        if reach > count:
            raise UnreadableError(f"its shape and stride reach element {reach:,} of a storage of {count:,}")
    # ml_dtypes' types have no byte order and NumPy's bool takes any byte: both are read as plain integers.
    native = dtype if dtype.isbuiltin == 1 and dtype.kind != "b" else np.dtype(f"u{dtype.itemsize}")
    raw = native.newbyteorder("<" if order == "little" else ">")
    try:
        if number == 0:
            return np.zeros(tensor.shape, dtype)
        flat = np.frombuffer(run, raw, count - tensor.offset, start + tensor.offset * dtype.itemsize)
        strides = [s * dtype.itemsize for s in tensor.stride]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
        owned = np.array(view, dtype=native, order="C", copy=True)
    except (ValueError, OverflowError):
        raise UnreadableError("its shape is more than an array can have") from None
    if dtype.kind == "b":
        return owned != 0
    return owned if owned.dtype == dtype else owned.view(dtype).copy()
