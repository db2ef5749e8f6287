"""Weight files written byte by byte: those that lie about themselves, and pickles that would run code."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _safetensors(header: Any, data: int = 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _entry(dtype: str = "F32", shape: Any = (4, 4), offsets: Any = (0, 64)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _numbers(random: np.random.RandomState) -> int:
    return (2**63, 2**64, 2**31, 2**40, -1, 10**30, 1 + int(random.randint(3)) + 2**20)[random.randint(7)]


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _state_dict(count: int = 16, shape: bytes = b"K\x02\x85", stride: bytes = b"K\x01\x85") -> bytes:
    reference = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ" + struct.pack("<i", count)
    tensor = reference + b"tQK\0" + shape + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + tensor + b"s."


def as_zip(body: bytes, data: bytes = bytes(64), method: int = zipfile.ZIP_STORED) -> bytes:
    return zip_of({"archive/data.pkl": body, "archive/byteorder": b"little", "archive/data/0": data}, method)


def as_stream(body: bytes) -> bytes:
    facts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 16) + bytes(64)
    return b"".join(facts) + body.replace(b"tQ", b"NtQ") + tail


def as_tar(body: bytes) -> bytes:
    file = io.BytesIO()
    zero = pickle.dumps(0, 2)
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in (("pickle", body), ("tensors", zero), ("storages", zero + pickle.dumps([], 2))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


CONTAINERS = (as_zip, as_stream, as_tar, lambda body: body)


def _zip_that_claims(random: np.random.RandomState) -> bytes:
    whole = bytearray(as_zip(_state_dict(), bytes(1 << 20), zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", whole, whole.rindex(b"PK\x01\x02") + 24, int(random.randint(1, 2**31 - 1)))
    return bytes(whole)


_MEMBER = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"


def _end_of(table: bytes) -> bytes:
    """Returns what ends an archive whose only content is a table of its members."""
    count = len(table) // len(_MEMBER)
    large = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, len(table), 4)
    large += struct.pack("<IIQI", 0x07064B50, 0, 4 + len(table), 1)
    return large + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def _long(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


LYING: dict[str, Callable[[np.random.RandomState], bytes]] = {
    "safetensors: header longer than the file": lambda random: (
        struct.pack("<Q", int(random.randint(10**4, 2**62))) + b"{}" + bytes(50)
    ),
    "safetensors: shape that the bytes don't have": lambda random: _safetensors(
        {"a": _entry(shape=[_numbers(random)])}
    ),
    "safetensors: offsets that lie": lambda random: _safetensors(
        {"a": _entry(offsets=[int(random.choice([0, 60, 64])), _numbers(random)])}
    ),
    "safetensors: tensors over one another": lambda random: _safetensors({"a": _entry(), "b": _entry()}),
    "safetensors: bytes that no tensor has": lambda random: _safetensors(
        {"a": _entry()}, 64 + 4 * random.randint(1, 9)
    ),
    "safetensors: types that lie": lambda random: _safetensors(
        {"a": _entry(dtype=str(random.choice(["F64", "I8", "X9", "", "f32"])))}
    ),
    "safetensors: header nested without end": lambda random: _safetensors(
        b'{"a":' + b"[{"[int(random.randint(2)) :][:1] * int(random.randint(1000, 100_000))
    ),
    "safetensors: header of other JSON": lambda random: _safetensors(
        {"a": random.choice(["null", "[]", "1", '"x"', "{}"])} if random.randint(2) else {"a": None}
    ),
    "zip: members packed": lambda random: as_zip(_state_dict(1 << 18), bytes(1 << 20), zipfile.ZIP_DEFLATED),
    "zip: a bomb that claims another size": _zip_that_claims,
    "zip: an archive in the archive": lambda random: as_zip(as_zip(_state_dict())),
    "zip: a table of many members": lambda random: (
        b"PK\3\4" + (table := _MEMBER * int(random.randint(180_000, 400_000))) + _end_of(table)
    ),
    "pickle: keys of one hash": lambda random: CONTAINERS[random.randint(2)](
        b"\x80\x02}("
        + b"".join(
            b"\x8a\x18" + (int(random.choice([-1, 1])) * (2**61 - 1) * n).to_bytes(24, "little", signed=True) + b"N"
            for n in range(1, int(random.randint(10_000, 50_000)))
        )
        + b"u."
    ),
    "pickle: nested without end": lambda random: CONTAINERS[random.randint(2)](
        b"\x80\x02)" + b"\x85" * int(random.randint(10_000, 500_000)) + b"."
    ),
    "pickle: one mapping in many places": lambda random: CONTAINERS[random.randint(2)](
        b"\x80\x02}(X\x01\0\0\0a}(K\x01NuX\x01\0\0\0b}(K\x01Nuq\0"
        + b"".join(b"X\x05\0\0\0%05dh\0" % n for n in range(int(random.randint(1000, 40_000))))
        + b"u."
    ),
    "checkpoint: several sets of weights": lambda random: CONTAINERS[random.randint(2)](
        b"\x80\x02}" + b"".join(b"X\x01\0\0\0" + bytes([97 + n]) + _state_dict()[2:-1] + b"s" for n in range(3)) + b"."
    ),
    "zip: another zip": lambda random: zip_of({f"{n}.txt": b"x" for n in range(random.randint(0, 9))}),
    "tensors: a shape beyond the storage": lambda random: CONTAINERS[random.randint(2)](
        _state_dict(shape=_long(int(random.randint(17, 2**62))) + b"\x85")
    ),
    "tensors: a stride beyond the storage": lambda random: CONTAINERS[random.randint(2)](
        _state_dict(stride=_long(int(random.randint(16, 2**62))) + b"\x85")
    ),
    "tensors: one element, repeated": lambda random: CONTAINERS[random.randint(2)](
        _state_dict(shape=_long(int(random.randint(2**30, 2**62))) + b"\x85", stride=b"K\0\x85")
    ),
    "tensors: a storage beyond the file": lambda random: CONTAINERS[random.randint(2)](
        _state_dict(count=int(random.randint(17, 2**31 - 1)))
    ),
}


def hostile(sentinel: Path) -> dict[str, Callable[[np.random.RandomState], bytes]]:
    """Returns makers of pickles that would make `sentinel`, if they were run, in every container."""
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w')"

    class Calls:
        def __init__(self, function: Any, *arguments: Any) -> None:
            self.function, self.arguments = function, arguments

        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return self.function, self.arguments

        def __call__(self) -> None:
            """Never called; only what could be may stand first in `__reduce__`."""

    long = b"X" + struct.pack("<I", len(command)) + command.encode()

    def contained(make: Callable[[int], bytes]) -> Callable[[np.random.RandomState], bytes]:
        return lambda random: CONTAINERS[random.randint(4)](make(int(random.randint(2, 6))))

    makers: dict[str, Callable[[int], bytes]] = {
        "os.system": lambda protocol: pickle.dumps(Calls(os.system, command), protocol),
        "eval": lambda protocol: pickle.dumps(Calls(eval, code), protocol),
        "exec, deep inside": lambda protocol: pickle.dumps({"state_dict": {"a": [{"b": Calls(exec, code)}]}}, protocol),
        "getattr of an import": lambda protocol: pickle.dumps(
            Calls(Calls(getattr, Calls(importlib.import_module, "os"), "system"), command), protocol
        ),
        "subprocess": lambda protocol: pickle.dumps(Calls(subprocess.check_output, ["touch", str(sentinel)]), protocol),
        "a pickle in a pickle": lambda protocol: pickle.dumps(
            Calls(pickle.loads, pickle.dumps(Calls(os.system, command))), protocol
        ),
        "open for writing": lambda protocol: pickle.dumps(Calls(open, str(sentinel), "w"), protocol),
        "torch.load": lambda protocol: b"\x80\x02ctorch.serialization\nload\n" + long + b"\x85R.",
        "numpy's own pickles": lambda protocol: pickle.dumps(np.arange(3), protocol),
        "a name with dots": lambda protocol: b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
        "INST": lambda protocol: b"\x80\x02(" + long + b"ios\nsystem\n.",
        "a pickle of text": lambda protocol: b"cos\nsystem\n(" + long + b"tR.",
        "the extension registry": lambda protocol: b"\x80\x02\x82\x01)R.",
        "behind good weights": lambda protocol: _state_dict()[:-1] + b"cos\nsystem\n" + long + b"\x85R.",
    }
    return {f"pickle: {name}": contained(make) for name, make in makers.items()}
