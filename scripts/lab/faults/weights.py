"""Weights from a link: spoiled, lying and hostile files, read by a process that is watched while it reads.

    python -m faults.weights WORK FIRST LAST SEED     # what the campaign starts: one line of JSON per file

An audit hook tells of everything that could be harm: a program started, code compiled or run, a module imported, a file
written, a connection made.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faults import models
from faults.mutate import MUTATIONS, mutated
from faults.processes import ROOT, environment
from faults.tally import Tally

DEFAULT_COUNT = 8000
MODELS = 60  # files of 45 MB
MOST_SECONDS = 10.0  # for a file of a few kilobytes
MOST_GROWTH = 300 * 2**20  # of memory, while one is read
TIMEOUT_S = 120.0  # without a word of the reading process

_FIXTURES = ROOT / "tests" / "weights_conversion" / "fixtures"
_ALLOWED = ("marshal.loads",)  # of an import, which is told of itself


def run(work: Path, *, count: int, seed: int) -> Tally:
    """Reads `count` files; each has to be read or refused in one line, with nothing run, nothing written, in time."""
    tally = Tally(
        "weights",
        "Weight files that are damaged (all of torch's formats and safetensors), inconsistent (safetensors headers, "
        "zip members, shapes) or hostile (pickles that would run code). Each must be read, or refused in one line, in "
        "time and in bounded memory. Nothing may be run, imported or written",
    )
    follow(__name__, tally, work, count, seed)
    follow(models.__name__, tally, work, min(MODELS, count), seed)
    return tally


def follow(module: str, tally: Tally, work: Path, count: int, seed: int) -> None:
    """Has a process of `module` try the cases up to `count`, and another go on after each that it dies of."""
    number = 0
    work.mkdir(parents=True, exist_ok=True)
    while number < count:
        command = [sys.executable, "-m", module, str(work), str(number), str(count), str(seed)]
        with (
            (work / "weights.stderr").open("wb") as err,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment(work), text=True) as child,
        ):
            while line := _line_in_time(child):
                case = json.loads(line)
                tally.add(not case["failure"], case["kind"], f"file {number} of seed {seed}: {case['failure']}")
                number += 1
        if number < count:
            # It died, or hung, with this one.
            said = (work / "weights.stderr").read_text(errors="replace")[-500:]
            tally.add(False, "crash", f"file {number} of seed {seed}: exit code {child.returncode}: {said}")
            number += 1


def _line_in_time(child: subprocess.Popen[str]) -> str:
    overdue = threading.Timer(TIMEOUT_S, child.kill)
    overdue.start()
    try:
        assert child.stdout is not None
        return child.stdout.readline()
    finally:
        overdue.cancel()


# ------------------------------------------------------------------------------------------------- the reading process


class _Watch:
    """Notes what a piece of work does that reading never does."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            _, mode, flags = (*arguments, None, None, None)[:3]
            writes = any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & 0o3)
            if not writes:
                return
        elif not event.startswith(
            ("os.", "subprocess.", "socket.", "import", "exec", "compile", "ctypes.", "shutil.", "pickle.", "marshal.")
        ) or event in ("os.listdir", "os.scandir", *_ALLOWED):
            return
        self.seen.append(f"{event}{arguments!r}"[:200])


def main(work: Path, first: int, last: int, seed: int) -> None:
    """Reads the files from `first` to `last` and prints a line of JSON for each."""
    from weights_conversion import WeightsFileError, check_finite, read, read_metadata

    folder = work / "files"
    folder.mkdir(parents=True, exist_ok=True)
    sources = _sources(folder)
    hostile = _hostile(work / "ran")
    kinds = [*MUTATIONS, *_LYING, *hostile]
    watch = _Watch()
    good = folder / "good.pth"
    for path in (good, folder / "good.safetensors"):  # whatever is imported on first use
        check_finite(read(path), path)
        read_metadata(path)

    def attempt(path: Path, must_fail: str) -> str:
        started, before = time.monotonic(), _peak()
        watch.seen.clear()
        watch.on = True
        said, refused = "", False
        try:
            for reader in (read, read_metadata):
                try:
                    reader(path)
                except WeightsFileError as error:
                    refused, said = refused or reader is read, str(error)
                    if "\n" in said or path.name not in said:
                        return f"the reason is {said!r}"
        finally:
            watch.on = False
        seconds, growth = time.monotonic() - started, _peak() - before
        if watch.seen:
            return f"it made this happen: {watch.seen[:3]}"
        if must_fail and not refused:
            return "was read"
        if seconds > MOST_SECONDS or growth > MOST_GROWTH:
            return f"took {seconds:.1f} s and {growth / 2**20:,.0f} MiB"
        return "it wrote" if (work / "ran").exists() else ""

    for number in range(first, last):
        random = np.random.RandomState([seed, number])
        kind = kinds[number % len(kinds)]
        path = folder / f"spoiled{('.pth', '.safetensors')[number % 2]}"
        if kind in MUTATIONS:
            content = mutated(sources[random.randint(len(sources))], kind, random, sources)
        elif kind in _LYING:
            content = _LYING[kind](random)
        else:
            content = hostile[kind](random)
        path.write_bytes(content)
        try:
            failure = attempt(path, "" if kind in MUTATIONS else kind)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        print(json.dumps({"kind": kind, "failure": failure}), flush=True)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tensors(random: np.random.RandomState) -> dict[str, np.ndarray]:
    return {
        "conv1.weight": random.rand(4, 3, 3, 3).astype(np.float32),
        "bn1.running_mean": random.rand(4),
        "bn1.num_batches_tracked": np.array(7, np.int64),
        "flags": np.array([True, False]),
    }


def _sources(folder: Path) -> list[bytes]:
    from weights_conversion import write

    for suffix in ("pth", "safetensors"):
        write(folder / f"good.{suffix}", _tensors(np.random.RandomState(0)), metadata={"facefeat_classes": "{}"})
    ours = [(folder / f"good.{suffix}").read_bytes() for suffix in ("pth", "safetensors")]
    names = ("zip.pth", "stream.pth", "tar.pth", "checkpoint.pth", "module.pth", "plain.safetensors")
    return ours + [(_FIXTURES / name).read_bytes() for name in names]


# ------------------------------------------------------------------------------------------------------ files that lie


def _safetensors(header: Any, data: int = 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _entry(dtype: str = "F32", shape: Any = (4, 4), offsets: Any = (0, 64)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _numbers(random: np.random.RandomState) -> int:
    return (2**63, 2**64, 2**31, 2**40, -1, 10**30, 1 + int(random.randint(3)) + 2**20)[random.randint(7)]


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _state_dict(count: int = 16, shape: bytes = b"K\x02\x85", stride: bytes = b"K\x01\x85") -> bytes:
    reference = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ" + struct.pack("<i", count)
    tensor = reference + b"tQK\0" + shape + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + tensor + b"s."


def _as_zip(body: bytes, data: bytes = bytes(64), method: int = zipfile.ZIP_STORED) -> bytes:
    return _zip({"archive/data.pkl": body, "archive/byteorder": b"little", "archive/data/0": data}, method)


def _as_stream(body: bytes) -> bytes:
    facts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 16) + bytes(64)
    return b"".join(facts) + body.replace(b"tQ", b"NtQ") + tail


def _as_tar(body: bytes) -> bytes:
    file = io.BytesIO()
    zero = pickle.dumps(0, 2)
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in (("pickle", body), ("tensors", zero), ("storages", zero + pickle.dumps([], 2))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


_CONTAINERS = (_as_zip, _as_stream, _as_tar, lambda body: body)


def _zip_that_claims(random: np.random.RandomState) -> bytes:
    whole = bytearray(_as_zip(_state_dict(), bytes(1 << 20), zipfile.ZIP_DEFLATED))
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


_LYING: dict[str, Callable[[np.random.RandomState], bytes]] = {
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
    "zip: members packed": lambda random: _as_zip(_state_dict(1 << 18), bytes(1 << 20), zipfile.ZIP_DEFLATED),
    "zip: a bomb that claims another size": _zip_that_claims,
    "zip: an archive in the archive": lambda random: _as_zip(_as_zip(_state_dict())),
    "zip: a table of many members": lambda random: (
        b"PK\3\4" + (table := _MEMBER * int(random.randint(180_000, 400_000))) + _end_of(table)
    ),
    "pickle: keys of one hash": lambda random: _CONTAINERS[random.randint(2)](
        b"\x80\x02}("
        + b"".join(
            b"\x8a\x18" + (int(random.choice([-1, 1])) * (2**61 - 1) * n).to_bytes(24, "little", signed=True) + b"N"
            for n in range(1, int(random.randint(10_000, 50_000)))
        )
        + b"u."
    ),
    "pickle: nested without end": lambda random: _CONTAINERS[random.randint(2)](
        b"\x80\x02)" + b"\x85" * int(random.randint(10_000, 500_000)) + b"."
    ),
    "pickle: one mapping in many places": lambda random: _CONTAINERS[random.randint(2)](
        b"\x80\x02}(X\x01\0\0\0a}(K\x01NuX\x01\0\0\0b}(K\x01Nuq\0"
        + b"".join(b"X\x05\0\0\0%05dh\0" % n for n in range(int(random.randint(1000, 40_000))))
        + b"u."
    ),
    "checkpoint: several sets of weights": lambda random: _CONTAINERS[random.randint(2)](
        b"\x80\x02}" + b"".join(b"X\x01\0\0\0" + bytes([97 + n]) + _state_dict()[2:-1] + b"s" for n in range(3)) + b"."
    ),
    "zip: another zip": lambda random: _zip({f"{n}.txt": b"x" for n in range(random.randint(0, 9))}),
    "tensors: a shape beyond the storage": lambda random: _CONTAINERS[random.randint(2)](
        _state_dict(shape=_long(int(random.randint(17, 2**62))) + b"\x85")
    ),
    "tensors: a stride beyond the storage": lambda random: _CONTAINERS[random.randint(2)](
        _state_dict(stride=_long(int(random.randint(16, 2**62))) + b"\x85")
    ),
    "tensors: one element, repeated": lambda random: _CONTAINERS[random.randint(2)](
        _state_dict(shape=_long(int(random.randint(2**30, 2**62))) + b"\x85", stride=b"K\0\x85")
    ),
    "tensors: a storage beyond the file": lambda random: _CONTAINERS[random.randint(2)](
        _state_dict(count=int(random.randint(17, 2**31 - 1)))
    ),
}


# --------------------------------------------------------------------------------------------------- files that attack


def _hostile(sentinel: Path) -> dict[str, Callable[[np.random.RandomState], bytes]]:
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

    import importlib
    import os

    long = b"X" + struct.pack("<I", len(command)) + command.encode()

    def contained(make: Callable[[int], bytes]) -> Callable[[np.random.RandomState], bytes]:
        return lambda random: _CONTAINERS[random.randint(4)](make(int(random.randint(2, 6))))

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


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:5]))
