"""torch's two older file formats, read without torch. Both hold little-endian numbers on every machine.

* The pickle stream before torch 1.6: a magic number, a protocol number, system facts, the object, the list of storage
  keys, each a pickle; then, for each key, an int64 count and the elements.
* tar (torch 0.1): the members `sys_info`, `storages`, `tensors` and `pickle`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from weights_conversion._candidates import SAVE_PLAIN, Reading, state_dict_of
from weights_conversion._torch_arrays import lookup, read_run, to_arrays
from weights_conversion._torch_objects import (
    CUT_SHORT,
    LONGEST_KEY,
    Opaque,
    Storage,
    StorageType,
    Tensor,
    TensorType,
    UnreadableError,
    make_tensor,
)
from weights_conversion._torch_pickle import Steps, load

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_MOST_TAR_MEMBERS = 1000  # torch's have four; a gigabyte of empty members would take a minute to count


def read_stream(data: memoryview, reading: Reading) -> dict[str, np.ndarray]:
    """Reads the pickle stream of torch before 1.6. `data` is the whole file.

    Raises:
        UnreadableError: It is cut short or damaged, a pickle that torch did not write, or holds no state_dict.
    """
    steps = Steps()
    magic, at = load(data, 0, steps=steps)
    if magic != _MAGIC_NUMBER:
        raise UnreadableError("it is a pickle, but not one that torch.save wrote", SAVE_PLAIN + " with torch.save")
    protocol, at = load(data, at, steps=steps)
    if protocol != _PROTOCOL_VERSION:
        raise UnreadableError("it states a format version that torch never had")
    _, at = load(data, at, steps=steps)  # facts of the machine that wrote it
    types: dict[str, np.dtype] = {}

    def storage(saved: Any) -> Storage | Opaque:
        match saved:
            case ("module" | b"module", kind, *_):  # a layer's class, with where its source was
                return kind if isinstance(kind, Opaque) else Opaque("a module")
            case ("storage" | b"storage", StorageType(np.dtype() as dtype), key, _, int(), view):
                name = _key(key)
                if types.setdefault(name, dtype) != dtype:
                    raise ValueError
                if view is None:
                    return Storage(name, dtype, saved[4])
                _, first, count = view
                if type(first) is int and type(count) is int and min(first, count) >= 0:
                    return Storage(name, dtype, count, first)
        raise ValueError

    value, at = load(data, at, storage, steps)
    wanted = state_dict_of(value, reading)
    keys, at = load(data, at, steps=steps)
    if not isinstance(keys, list):
        raise UnreadableError("it has no list of its storages")
    runs: dict[str, memoryview] = {}
    for name in map(_key, keys):
        if name not in types:
            raise UnreadableError("it lists a storage that no tensor uses")
        runs[name], at = read_run(data, at, types[name].itemsize)
    return to_arrays(wanted, lookup(runs), "little", len(data))


def _key(key: Any) -> str:
    if isinstance(key, str | bytes) and len(key) > LONGEST_KEY:
        raise ValueError
    if isinstance(key, bytes):
        return key.decode("latin-1")
    return str(key) if isinstance(key, str) or (type(key) is int and abs(key) < 2**64) else ""


def read_tar(data: memoryview, reading: Reading) -> dict[str, np.ndarray]:
    """Reads the tar of torch 0.1. `data` is the whole file.

    Raises:
        UnreadableError: It is cut short or damaged, a tar of something else, or holds no state_dict.
    """
    members, ended = _tar_members(data)
    if not ended and "storages" not in members:
        raise UnreadableError("its tar archive has no end", CUT_SHORT)
    if missing := [name for name in ("storages", "tensors", "pickle") if name not in members]:
        raise UnreadableError(
            f"it is a tar archive without the members {', '.join(missing)} that torch's have",
            "if it is an archive that holds weights, unpack it first",
        )
    steps = Steps()
    storages, runs = _tar_storages(members["storages"], steps)
    tensors = _tar_tensors(members["tensors"], storages, steps)

    def persistent(saved: Any) -> Tensor | Opaque:
        if isinstance(saved, tuple):  # (class, file, source): the mark of a pickled module
            return saved[0] if saved and isinstance(saved[0], Opaque) else Opaque("a module")
        return tensors[_key(saved)]

    value, _ = load(members["pickle"], 0, persistent, steps)
    return to_arrays(state_dict_of(value, reading), lookup(runs), "little", len(data))


def _tar_storages(data: memoryview, steps: Steps) -> tuple[dict[str, Storage], dict[str, memoryview]]:
    count, at = _count(data, 0)
    storages: dict[str, Storage] = {}
    runs: dict[str, memoryview] = {}
    for _ in range(count):
        record, at = load(data, at, steps=steps)
        match record:
            case (int() | str() as saved, str(), StorageType(np.dtype() as dtype)):
                key = _key(saved)
                runs[key], at = read_run(data, at, dtype.itemsize)
                storages[key] = Storage(key, dtype, len(runs[key]) // dtype.itemsize)
            case _:
                raise UnreadableError("a record of its storages makes no sense")
    views, _ = load(data, at, steps=steps)
    for view in views if isinstance(views, list) else [None]:
        match view:
            case (target, root, int(first), int(size)) if first >= 0 and size >= 0 and _key(root) in storages:
                base = storages[_key(root)]
                storages[_key(target)] = Storage(base.key, base.dtype, size, base.first + first)
            case _:
                raise UnreadableError("a view in its storages makes no sense")
    return storages, runs


def _tar_tensors(data: memoryview, storages: Mapping[str, Storage], steps: Steps) -> dict[str, Tensor]:
    count, at = _count(data, 0)
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        record, at = load(data, at, steps=steps)
        try:
            key, storage_key, kind = record
            # int32: dimensions, 4 bytes of no meaning (it was once read as 8), then int64: sizes, strides, offset.
            (dimensions,) = struct.unpack_from("<i", data, at)
            if not (isinstance(kind, TensorType) and 0 <= dimensions <= 32):
                raise ValueError
            numbers = struct.unpack_from(f"<{2 * dimensions + 1}q", data, at + 8)
            at += 8 + 8 * len(numbers)
            tensors[_key(key)] = make_tensor(
                storages[_key(storage_key)], None, numbers[-1], numbers[:dimensions], numbers[dimensions:-1]
            )
        except (KeyError, TypeError, ValueError, struct.error):
            raise UnreadableError("a record of its tensors makes no sense") from None
    return tensors


def _count(data: memoryview, at: int) -> tuple[int, int]:
    count, at = load(data, at)
    if type(count) is not int or not 0 <= count <= len(data):
        raise UnreadableError("a count in it makes no sense")
    return count, at


def _tar_members(data: memoryview) -> tuple[dict[str, memoryview], bool]:
    """The plain files of a tar, by name, and whether its end is there. (`tarfile` can loop for ever on bad headers.)"""
    members: dict[str, memoryview] = {}
    at = 0
    for _ in range(_MOST_TAR_MEMBERS):
        if at + 512 > len(data) or not data[at]:
            break
        header = bytes(data[at : at + 512])
        try:
            size = int(header[124:136].split(b"\0", 1)[0].strip() or b"0", 8)
            checksum = int(header[148:156].split(b"\0", 1)[0].strip() or b"0", 8)
        except ValueError:
            raise UnreadableError("a header of its tar archive makes no sense") from None
        if size < 0 or checksum != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
            raise UnreadableError("a header of its tar archive does not match its checksum")
        name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace").removeprefix("./")
        start = at + 512
        if start + size > len(data):
            missing = start + size - len(data)
            raise UnreadableError(f"its member {name!r} ends {missing:,} bytes after the end of the file", CUT_SHORT)
        if header[156:157] in (b"0", b"\0"):
            members[name] = data[start : start + size]
        at = start + (size + 511) // 512 * 512
    return members, at + 512 <= len(data)
