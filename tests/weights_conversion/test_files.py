"""Reading and writing files of weights: every format, every way in which a file can be wrong or hostile."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from facefeat_jax.system.errors import UserError
from faults.weight_files import as_stream, as_tar, as_zip, zip_of
from weights_conversion import _torch_pickle as torch_pickle
from weights_conversion._torch_pickle import load
from weights_conversion.files import WeightsFileError, check_finite, read, read_metadata, write

FIXTURES = Path(__file__).parent / "fixtures"
_spec = importlib.util.spec_from_file_location("make_fixtures", Path(__file__).parent / "make_fixtures.py")
assert _spec and _spec.loader
make_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_fixtures)


def expected(names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    values = {name: array for name, (array, _) in make_fixtures.expected().items() if names is None or name in names}
    if "bfloat16" in values:
        values["bfloat16"] = values["bfloat16"].astype(ml_dtypes.bfloat16)
    return values


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert got[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


def refusal(path: Path) -> str:
    """The message of a refusal, which must be one line that names the file and says what to do."""
    with pytest.raises(WeightsFileError) as caught:
        read(path)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert "\n" not in message and path.name in message and "; " in message
    return message


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth"])
def test_every_dtype_stride_and_view(name: str) -> None:
    tensors = read(FIXTURES / name)
    assert_same(tensors, expected())
    assert list(tensors) == list(make_fixtures.expected())  # the file's order


def test_tar() -> None:
    assert_same(read(FIXTURES / "tar.pth"), expected(make_fixtures.TAR_NAMES))


def test_safetensors() -> None:
    want = expected()
    del want["complex128"]  # the format has no such type
    assert_same(read(FIXTURES / "plain.safetensors"), want)


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth", "tar.pth", "plain.safetensors"])
def test_arrays_are_owned_native_and_contiguous(name: str) -> None:
    for array in read(FIXTURES / name).values():
        assert array.flags.owndata and array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative
    tensors = read(FIXTURES / name)
    before = tensors["shared.part"].copy()
    tensors["shared.whole"][:] = 0
    np.testing.assert_array_equal(tensors["shared.part"], before)


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth", "tar.pth", "plain.safetensors"])
def test_content_and_not_the_name_says_the_format(name: str, tmp_path: Path) -> None:
    other = tmp_path / "weights.jpg"
    other.write_bytes((FIXTURES / name).read_bytes())
    assert_same(read(other), read(FIXTURES / name))


def test_the_fixtures_are_what_they_claim() -> None:
    """Each format's own marks are in its fixture, those that the real files have among them."""
    zipped = members_of((FIXTURES / "zip.pth").read_bytes())
    assert b"_rebuild_parameter\n" in zipped["zip/data.pkl"] and b"_metadata" in zipped["zip/data.pkl"]
    assert (FIXTURES / "stream.pth").read_bytes().startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
    with tarfile.open(FIXTURES / "tar.pth") as tar:
        assert tar.getnames() == ["sys_info", "pickle", "tensors", "storages"]
    assert b"ctorch.nn.parameter\nParameter\nq\x03)\x81" in (FIXTURES / "tar.pth").read_bytes()
    assert all(path.stat().st_size < 20_000 for path in FIXTURES.iterdir())


def test_checkpoint_is_unwrapped() -> None:
    assert_same(read(FIXTURES / "checkpoint.pth"), expected(("conv.weight", "bn.num_batches_tracked")))


@pytest.mark.parametrize("prefix", ["archive", "a/b/c"])
def test_any_folder_inside_the_zip(prefix: str, tmp_path: Path) -> None:
    members = members_of((FIXTURES / "zip.pth").read_bytes())
    path = tmp_path / "w.pth"
    path.write_bytes(zip_of({f"{prefix}/{name.removeprefix('zip/')}": c for name, c in members.items()}))
    assert_same(read(path), expected())


def test_big_endian_zip(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(258, np.int64),
        "c": np.array([1 + 2j], np.complex64),
        "d": np.array([1.5, -2], ml_dtypes.bfloat16),
        "e": np.array([True, False]),
    }
    write(tmp_path / "little.pth", tensors)
    members = members_of((tmp_path / "little.pth").read_bytes())
    assert members["archive/byteorder"] == b"little"
    members["archive/byteorder"] = b"big"
    for index, width in enumerate((4, 8, 4, 2, 1)):
        raw = np.frombuffer(members[f"archive/data/{index}"], f"u{width}")
        members[f"archive/data/{index}"] = raw.byteswap().tobytes()
    (tmp_path / "big.pth").write_bytes(zip_of(members))
    assert_same(read(tmp_path / "big.pth"), tensors)
    members["archive/byteorder"] = b"middle"
    (tmp_path / "odd.pth").write_bytes(zip_of(members))
    assert "byte order" in refusal(tmp_path / "odd.pth")


def test_unsigned_and_float8_tensors(tmp_path: Path) -> None:
    """torch saves types that have no storage class of their own over an untyped storage, with the type beside it."""
    for name, dtype in (("uint16", np.uint16), ("uint64", np.uint64), ("float8_e5m2", ml_dtypes.float8_e5m2)):
        values = np.array([1, 2, 3], dtype)
        body = (
            b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v3\n((X\x07\x00\x00\x00storagectorch.storage\n"
            b"UntypedStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK"
            + bytes([values.nbytes])
            + b"tQK\x01K\x02\x85K\x01"
            b"\x85\x89ccollections\nOrderedDict\n)Rctorch\n" + name.encode() + b"\ntRs."
        )
        path = tmp_path / f"{name}.pth"
        path.write_bytes(zip_of({"x/data.pkl": body, "x/data/0": values.tobytes()}))
        assert_same(read(path), {"a": values[1:]})


# -------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", ["zip.pth", "stream.pth", "tar.pth", "plain.safetensors"])
def test_every_cut_is_refused(name: str, tmp_path: Path) -> None:
    whole = (FIXTURES / name).read_bytes()
    # A tar is padded with zeros at its end, which may be missing.
    end = len(whole.rstrip(b"\0")) - 1 if name == "tar.pth" else len(whole)
    path = tmp_path / name
    for length in {*range(1, end, 97), end - 1}:
        path.write_bytes(whole[:length])
        message = refusal(path)
        if length > 1100:
            assert "incomplete" in message and "download" in message, length


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["resnet18-f37072fd", "resnet18-5c106cde"])
def test_cut_torchvision_files_are_refused(realdata: Path, name: str) -> None:
    message = refusal(realdata / "torchvision_resnet18" / f"{name}.TRUNCATED.pth")
    assert "incomplete" in message and "download" in message


@pytest.mark.realdata
def test_torchvision_tar_completed_with_zeros_reads(realdata: Path, tmp_path: Path) -> None:
    """The real headers, opcodes and first storages, up to the cut; what is missing is made up behind it."""
    cut = (realdata / "torchvision_resnet18" / "resnet18-5c106cde.TRUNCATED.pth").read_bytes()
    shapes = json.loads((realdata / "torchvision_resnet18" / "resnet18-f37072fd.shapes.json").read_text())
    genuine = np.load(realdata / "torchvision_resnet18" / "resnet18-5c106cde.partial.npz")
    start, size = 20_992, 46_801_661
    storages = bytearray(cut[start:]) + bytes(start + size - len(cut))
    # The storages that were cut off follow as zeros, each behind its record, (key, "cpu", FloatStorage), and its count.
    records = cut[11_264 : 11_264 + 8_019]
    counts: dict[int, int] = {}  # by storage: every tensor of the file has its own, and fills it
    at = load(records, 0)[1]
    for _ in range(102):
        (_, key, _), at = load(records, at)
        (dimensions,) = struct.unpack_from("<i", records, at)
        counts[key] = int(np.prod(struct.unpack_from(f"<{dimensions}q", records, at + 8)))
        at += 8 + 8 * (2 * dimensions + 1)
    assert at == len(records) and len(counts) == 102
    at = load(storages, 0)[1]
    while True:
        (key, _, _), after = load(storages, at)
        if after + 8 + 4 * counts[key] > len(cut) - start:
            break  # this one the cut went through: it is overwritten below
        assert struct.unpack_from("<q", storages, after) == (counts[key],)
        at = after + 8 + 4 * counts.pop(key)
    assert 0 < len(counts) < 102
    for key, count in counts.items():
        piece = (
            b"\x80\x02J" + struct.pack("<i", key) + b"X\x03\x00\x00\x00cpuq\x00ctorch\nFloatStorage\nq\x01\x87q\x02."
        )
        storages[at : at + len(piece) + 8] = piece + struct.pack("<q", count)
        at += len(piece) + 8 + 4 * count
    storages[at : at + 5] = b"\x80\x02]."
    path = tmp_path / "completed.pth"
    path.write_bytes(cut[:start] + bytes(storages) + bytes(1024))
    got = read(path)
    assert {name: list(array.shape) for name, array in got.items()} == shapes
    assert list(got) == list(shapes) and len(genuine.files) > 0
    for name in genuine.files:
        np.testing.assert_array_equal(got[name], genuine[name])


def test_flipped_bytes_in_a_storage_are_noticed_in_a_zip(tmp_path: Path) -> None:
    whole = bytearray((FIXTURES / "zip.pth").read_bytes())
    at = whole.index(expected()["bn.running_mean"].tobytes())
    whole[at] ^= 1
    path = tmp_path / "w.pth"
    path.write_bytes(whole)
    assert "checksum" in refusal(path)


NOT_WEIGHTS: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"<!DOCTYPE html><html>404</html>", "HTML page"),
    (b"\n  <html><body>", "HTML page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"),
    (b'{"conv1.weight": [64]}', "JSON"),
    (b"\x1f\x8b\x08\x00", "unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "Keras"),
    (b"hello there\n", "text"),
    (bytes(5000), "zeros"),
    (bytes(range(255, 0, -1)), "no format known"),
    (zip_of({"a.txt": b"hello"}), "zip archive of something else"),
    (zip_of({"a.npy": b"hello"}), ".npz"),
    (zip_of({"m/data.pkl": b"\x80\x02N.", "m/constants.pkl": b"", "m/code/a.py": b""}), "TorchScript"),
    (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
]


@pytest.mark.parametrize(("content", "says"), NOT_WEIGHTS, ids=[says for _, says in NOT_WEIGHTS])
def test_what_is_no_file_of_weights(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    assert says in refusal(path)


def test_tar_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(FIXTURES / "zip.pth", "zip.pth")
    assert "without the members storages, tensors, pickle" in refusal(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "resnet18.pth").write_bytes(b"x")
    assert "did you mean 'resnet18.pth'?" in refusal(tmp_path / "resnet-18.pth")
    assert "no such folder" in refusal(tmp_path / "nowhere" / "resnet18.pth")
    assert "a folder; give the file in it, such as 'resnet18.pth'" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_a_name_with_a_line_break_stays_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError) as caught:
        read(tmp_path / "a\nb.pth")
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- other content


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {"zip": as_zip, "stream": as_stream, "tar": as_tar}


def tensor(
    shape: bytes = b"K\x02\x85", stride: bytes = b"K\x01\x85", count: bytes = b"K\x10", offset: bytes = b"K\x00"
) -> bytes:
    reference = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count
    tail = offset + shape + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"tQ" + tail


def mapping(value: bytes, key: bytes = b"X\x01\x00\x00\x00a") -> bytes:
    return b"\x80\x02}" + key + value + b"s."


def test_the_handmade_tensor_is_fine(tmp_path: Path) -> None:
    """What the next tests spoil does read when it is not spoiled."""
    (tmp_path / "w.pth").write_bytes(as_zip(mapping(tensor())))
    assert_same(read(tmp_path / "w.pth"), {"a": np.zeros(2, np.float32)})


HUGE = b"\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2**40
LIES: list[tuple[str, bytes, str]] = [
    ("shape beyond the storage", mapping(tensor(shape=b"K\x11\x85")), "reach"),
    ("stride beyond the storage", mapping(tensor(stride=b"K\x10\x85")), "reach"),
    ("offset beyond the storage", mapping(tensor(offset=b"K\x0f")), "reach"),
    ("storage beyond the file", mapping(tensor(count=b"K\x11")), "longer than what the file holds"),
    ("storage of a terabyte", mapping(tensor(count=HUGE, shape=HUGE + b"\x85")), "more elements than the file holds"),
    ("one element repeated", mapping(tensor(shape=HUGE + b"\x85", stride=b"K\x00\x85")), "more elements than the file"),
    ("negative size", mapping(tensor(shape=b"J\xff\xff\xff\xff\x85")), "makes no sense"),
    ("negative stride", mapping(tensor(stride=b"J\xff\xff\xff\xff\x85")), "makes no sense"),
    ("stride of another length", mapping(tensor(stride=b")")), "makes no sense"),
    ("shape of no numbers", mapping(tensor(shape=b"N\x85")), "makes no sense"),
    (
        "empty, but of more axes than there is room",
        mapping(tensor(b"(K\x00" + HUGE * 3 + b"t", b"(" + b"K\x01" * 4 + b"t")),
        "array",
    ),
]


@pytest.mark.parametrize(("body", "says"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
@pytest.mark.parametrize("container", ["zip", "stream"])
def test_tensors_that_lie(container: str, body: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTAINERS[container](body))
    assert says in refusal(path)


NO_STATE_DICT: list[tuple[str, bytes, str]] = [
    ("a number", b"\x80\x02K\x01.", "it holds a int"),
    ("a tensor", b"\x80\x02" + tensor() + b".", "it holds one tensor"),
    ("an empty dict", b"\x80\x02}.", "no tensors"),
    ("text among them", mapping(b"X\x01\x00\x00\x00b"), "entries that are not tensors: 'a' (str)"),
    ("an empty state_dict", mapping(b"}", b"X\x0a\x00\x00\x00state_dict"), "no tensors in 'state_dict'"),
    ("a number for a name", mapping(tensor(), b"K\x01"), "a key that is a int"),
    ("a tensor for a name", mapping(b"N", tensor()), "a key that is a tensor"),
]


@pytest.mark.parametrize(
    ("body", "says"), [case[1:] for case in NO_STATE_DICT], ids=[case[0] for case in NO_STATE_DICT]
)
def test_what_is_no_state_dict(body: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(as_zip(body))
    assert says in refusal(path) and "state_dict()" in refusal(path)


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    assert "holds a whole module" in refusal(FIXTURES / "module.pth")
    # The stream format refers to a module's class by a persistent id; here of a class that needs no other global.
    body = b"\x80\x02(X\x06\x00\x00\x00moduleX\x03\x00\x00\x00NetX\x01\x00\x00\x00aX\x01\x00\x00\x00btQ."
    (tmp_path / "m.pth").write_bytes(as_stream(body))
    assert "holds a whole module" in refusal(tmp_path / "m.pth")


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    """A megabyte of zeros compresses to a kilobyte: what a file holds must be what it weighs."""
    bomb = {"a/data.pkl": mapping(tensor(count=b"J\x00\x00\x04\x00")), "a/data/0": bytes(1 << 20)}
    path = tmp_path / "w.pth"
    path.write_bytes(zip_of(bomb, zipfile.ZIP_DEFLATED))
    assert "compressed" in refusal(path)


def test_zip_that_claims_more_than_it_has(tmp_path: Path) -> None:
    whole = bytearray(as_zip(mapping(tensor())))
    at = whole.rindex(b"PK\x01\x02")  # the last entry of the central directory: data/0
    struct.pack_into("<II", whole, at + 20, 0x7FFFFFFF, 0x7FFFFFFF)
    path = tmp_path / "w.pth"
    path.write_bytes(whole)
    assert "claim more bytes than the file has" in refusal(path)


def test_encrypted_member(tmp_path: Path) -> None:
    whole = bytearray(as_zip(mapping(tensor())))
    at = whole.index(b"PK\x01\x02")
    whole[at + 8] |= 1
    path = tmp_path / "w.pth"
    path.write_bytes(whole)
    assert "data.pkl" in refusal(path)


SAFETENSORS_LIES: list[tuple[str, bytes, str]] = [
    ("header longer than the file", struct.pack("<Q", 1 << 40) + b"{}", "incomplete"),
    (
        "data shorter than stated",
        json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode(),
        "incomplete",
    ),
    (
        "shape and bytes differ",
        json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode(),
        "refuses",
    ),
    ("no JSON", b"{nonsense}", "refuses"),
    ("unknown type", json.dumps({"a": {"dtype": "X9", "shape": [], "data_offsets": [0, 4]}}).encode(), "refuses"),
    ("nothing in it", b"{}      ", "no tensors"),
]


@pytest.mark.parametrize(("content", "says"), [c[1:] for c in SAFETENSORS_LIES], ids=[c[0] for c in SAFETENSORS_LIES])
def test_safetensors_that_lie(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    whole = (
        content
        if content[0] != ord("{")
        else struct.pack("<Q", len(content)) + content + bytes(4 * (says != "no tensors"))
    )
    path.write_bytes(whole)
    assert says in refusal(path)


# ------------------------------------------------------------------------------------------------------ hostile pickles


class _Calls:
    """Pickles as a call of `function` (which may be one itself) with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments

    def __call__(self) -> None:
        """Never called; only what could be may stand first in `__reduce__`."""


def hostile(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that make `sentinel` if they are run, each with the name that must be refused."""
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"
    import importlib as module_of_import
    import os as module_of_os

    long = b"X" + struct.pack("<I", len(command)) + command.encode()
    return {
        "os.system": (pickle.dumps(_Calls(module_of_os.system, command), 2), "posix.system"),
        "os.system, protocol 4": (pickle.dumps(_Calls(module_of_os.system, command), 4), "posix.system"),
        "eval": (pickle.dumps(_Calls(eval, code), 2), "__builtin__.eval"),
        "exec, protocol 5": (pickle.dumps(_Calls(exec, code), 5), "builtins.exec"),
        "nested": (pickle.dumps({"state_dict": {"a": [1, {"b": _Calls(eval, code)}]}}, 2), "__builtin__.eval"),
        "getattr chain": (
            pickle.dumps(_Calls(_Calls(getattr, _Calls(module_of_import.import_module, "os"), "system"), command), 2),
            "__builtin__.getattr",
        ),
        "torch.load": (b"\x80\x02ctorch.serialization\nload\n" + long + b"\x85R.", "torch.serialization.load"),
        "torch.hub.load": (b"\x80\x02ctorch.hub\nload\n" + long + b"\x85R.", "torch.hub.load"),
        "through an allowed module": (b"\x80\x02ctorch._utils\n__builtins__\n.", "torch._utils.__builtins__"),
        "dotted name": (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", "OrderedDict.__init__"),
        "INST": (b"\x80\x02(" + long + b"ios\nsystem\n.", "os.system"),
        "text protocol": (b"cos\nsystem\n(" + long + b"tR.", "os.system"),
        "extension registry": (b"\x80\x02\x82\x01)R.", "extension registry"),
        "after an OrderedDict": (
            b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00acos\nsystem\n" + long + b"\x85Rsb.",
            "os.system",
        ),
    }


@pytest.mark.parametrize("container", [*CONTAINERS, "bare"])
@pytest.mark.parametrize("attack", list(hostile(Path("x"))))
def test_hostile_pickles_are_refused_and_nothing_runs(container: str, attack: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    body, name = hostile(sentinel)[attack]
    path = tmp_path / "w.pth"
    path.write_bytes(body if container == "bare" else CONTAINERS[container](body))
    message = refusal(path)
    assert name in message and "nothing was run" in message
    assert not sentinel.exists()


def test_the_attacks_would_work_on_an_ordinary_unpickler(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    for attack in (
        "os.system",
        "os.system, protocol 4",
        "eval",
        "exec, protocol 5",
        "nested",
        "getattr chain",
        "text protocol",
    ):
        sentinel = tmp_path / "ran"
        body, _ = hostile(sentinel)[attack]
        pickle.loads(body)
        assert sentinel.exists(), attack
        sentinel.unlink()


CONFUSED: list[tuple[str, bytes]] = [
    ("call of a string", mapping(b"X\x01\x00\x00\x00b)R")),
    ("call of a storage type", mapping(b"ctorch\nFloatStorage\n)R")),
    ("new storage type", mapping(b"ctorch\nFloatStorage\n)\x81")),
    ("attributes of a tensor", mapping(tensor() + b"}b")),
    ("attributes of a function", mapping(b"ctorch._utils\n_rebuild_tensor_v2\n}b")),
    ("parameter never filled", mapping(b"ctorch.nn.parameter\nParameter\n)\x81")),
    ("parameter of a parameter", mapping(b"ctorch._utils\n_rebuild_parameter\n(N\x88NtR")),
    ("storage that is none", mapping(b"K\x01Q")),
    ("empty stack", b"\x80\x02."),
    ("memo never set", b"\x80\x02h\x07."),
    ("mark never set", b"\x80\x02t."),
    ("item of a number", b"\x80\x02K\x01K\x02a."),
    ("huge memo index", b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xff0."),
    ("huge integer", b"\x80\x02\x8b\xff\xff\x00\x00" + bytes(0xFFFF) + b"."),
    ("text longer than the file", b"\x80\x04\x8d" + b"\xff" * 8),
]


@pytest.mark.parametrize("body", [c[1] for c in CONFUSED], ids=[c[0] for c in CONFUSED])
@pytest.mark.parametrize("container", list(CONTAINERS))
def test_pickles_that_make_no_sense(container: str, body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTAINERS[container](body))
    refusal(path)


def test_a_pickle_of_millions_of_objects_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte would become an object of a hundred."""
    monkeypatch.setattr(torch_pickle, "_MOST_STEPS", 1000)
    for container in CONTAINERS.values():
        (tmp_path / "w.pth").write_bytes(container(b"\x80\x02" + b"}" * 1000 + b"."))
        assert "longer than that of any model" in refusal(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(as_zip(mapping(tensor())))
    assert read(tmp_path / "w.pth")


def test_a_tar_of_nothing_ends(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with tarfile.open(path, "w") as tar:
        for _ in range(1200):
            tar.addfile(tarfile.TarInfo("x"))
    path.write_bytes(path.read_bytes() + as_tar(mapping(tensor())))
    assert "without the members" in refusal(path)


def test_metadata_that_would_unpack_to_gigabytes_is_left_alone(tmp_path: Path) -> None:
    whole = bytearray(zip_of({"x/data.pkl": b"", "archive/metadata.json": bytes(1 << 24)}, zipfile.ZIP_DEFLATED))
    at = whole.rindex(b"PK\x01\x02")
    struct.pack_into("<I", whole, at + 24, 100)  # it claims a hundred bytes
    path = tmp_path / "w.pth"
    path.write_bytes(whole)
    tracemalloc.start()
    assert read_metadata(path) == {}
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_metadata_of_safetensors_is_read_by_the_library(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write(path, {"a": np.zeros(1, np.float32)}, metadata={"k": "v"})
    assert read_metadata(path)["k"] == "v"
    for header in (b"{" + b"[" * 100_000, b'{"__metadata__":{"a":1}}', b'{"__metadata__":[]}'):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(WeightsFileError, match="safetensors refuses it"):
            read_metadata(path)


def test_copies_do_not_multiply(tmp_path: Path) -> None:
    """A list of 1,000 pairs, made into an OrderedDict 20,000 times, would take 20 million steps of a 300 kB file."""
    pairs = b"](" + b"(K\x01K\x02t" * 1000 + b"eq\x00"
    body = b"\x80\x02" + pairs + b"ccollections\nOrderedDict\nq\x01](" + b"h\x01h\x00\x85R" * 20_000 + b"e."
    path = tmp_path / "w.pth"
    path.write_bytes(as_zip(body))
    assert "makes no sense" in refusal(path)


SEEDS = [(FIXTURES / name).read_bytes() for name in ("zip.pth", "stream.pth", "tar.pth", "plain.safetensors")]


@settings(max_examples=400, derandomize=True, deadline=2000, suppress_health_check=list(HealthCheck), database=None)
@given(
    which=st.integers(0, len(SEEDS) - 1),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.binary(min_size=0, max_size=9), st.integers(0, 9)), min_size=1, max_size=6
    ),
    first=st.booleans(),
)
@example(which=0, edits=[(0.0, b"", 0)], first=False)
def test_spoiled_files_are_read_or_refused(tmp_path_factory: Any, which: int, edits: list[Any], first: bool) -> None:
    """Whatever bytes change, the answer is arrays or a WeightsFileError: no other error, no wait, no memory."""
    content = bytearray(SEEDS[which])
    for where, insert, drop in edits:
        # Half of the edits fall where the structure is: the first two kilobytes.
        at = int(where * (min(2048, len(content)) if first else len(content)))
        content[at : at + drop] = insert
    path = tmp_path_factory.getbasetemp() / "fuzz.pth"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        tensors = read(path)
    except WeightsFileError as error:
        assert "\n" not in str(error)
    else:
        assert sum(array.nbytes for array in tensors.values()) <= 16 * len(content) + (1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@settings(max_examples=300, derandomize=True, deadline=2000, suppress_health_check=list(HealthCheck), database=None)
@given(
    body=st.lists(
        st.sampled_from(
            [bytes([o]) for o in b"().0125NQRabdelstu}]" + bytes([0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x94])]
            + [b"K\x01", b"q\x00", b"h\x00", b"X\x01\x00\x00\x00a", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"]
            + [b"ctorch.nn.parameter\nParameter\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"]
            + [b"ctorch._utils\n_rebuild_parameter\n", tensor(), b"}X\x01\x00\x00\x00a" + tensor() + b"s"]
        ),
        max_size=30,
    ),
    container=st.sampled_from(list(CONTAINERS)),
)
def test_arbitrary_opcodes_are_read_or_refused(tmp_path_factory: Any, body: list[bytes], container: str) -> None:
    path = tmp_path_factory.getbasetemp() / "opcodes.pth"
    path.write_bytes(CONTAINERS[container](b"\x80\x02" + b"".join(body) + b"."))
    try:
        assert read(path)
    except WeightsFileError as error:
        assert "\n" not in str(error)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "BOOL", "U8", "F8_E5M2", "F4", "C64", "X"]) | _JSON,
        "shape": st.lists(st.integers(0, 5) | st.integers(0, 2**66), max_size=4) | _JSON,
        "data_offsets": st.tuples(st.integers(0, 64), st.integers(0, 64) | st.integers(0, 2**66)) | _JSON,
    }
)


@settings(max_examples=300, derandomize=True, deadline=2000, suppress_health_check=list(HealthCheck), database=None)
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), _ENTRY | _JSON, max_size=3),
    length=st.none() | st.integers(0, 2**64 - 1),
    data=st.binary(max_size=64),
)
@example(header={"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, length=None, data=bytes(4))
@example(header={"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, length=None, data=b"")
@example(header={"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, length=None, data=b"1")
@example(header={"__metadata__": {"k": 1}}, length=None, data=b"")
def test_arbitrary_headers_are_read_or_refused(tmp_path_factory: Any, header: Any, length: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "headers.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    for reader in (read, read_metadata):
        try:
            found = reader(path)
        except WeightsFileError as error:
            assert "\n" not in str(error)
        else:
            assert reader is read_metadata or sum(array.nbytes for array in found.values()) <= len(data)


# -------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".PTH"])
def test_written_files_read_back(suffix: str, tmp_path: Path) -> None:
    tensors = expected()
    if suffix == ".safetensors":
        del tensors["complex128"]
    tensors["big endian"] = np.arange(3, dtype=">f4")
    write(tmp_path / f"w{suffix}", tensors)
    got = read(tmp_path / f"w{suffix}")
    tensors["big endian"] = np.arange(3, dtype=np.float32)
    assert_same(got, tensors)
    assert os.listdir(tmp_path) == [f"w{suffix}"]
    assert got["bn.num_batches_tracked"].dtype == np.int64 and got["bn.num_batches_tracked"].shape == ()
    if suffix != ".safetensors":
        assert list(got) == list(tensors)


def test_the_same_tensors_give_the_same_bytes_aligned_for_mapping(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", expected())
    write(tmp_path / "b.pth", expected())
    content = (tmp_path / "a.pth").read_bytes()
    assert content == (tmp_path / "b.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", content, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % 64 == 0


@pytest.mark.compare
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torch_loads_what_is_written(suffix: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = expected()
    if suffix == ".safetensors":
        del tensors["complex128"]
        write(tmp_path / "w.safetensors", tensors)
        loaded = pytest.importorskip("safetensors.torch").load_file(tmp_path / "w.safetensors")
    else:
        write(tmp_path / "w.pth", tensors)
        loaded = torch.load(tmp_path / "w.pth", weights_only=True)
        assert type(loaded).__name__ == "OrderedDict" and list(loaded) == list(tensors)
        assert torch.load(tmp_path / "w.pth", weights_only=True, mmap=True).keys() == loaded.keys()
    for name, array in tensors.items():
        want = make_fixtures.expected()[name]
        assert loaded[name].dtype == getattr(torch, want[1]) and tuple(loaded[name].shape) == array.shape
        assert torch.equal(loaded[name], torch.from_numpy(np.array(want[0])).to(getattr(torch, want[1])))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    write(path, {"a": np.zeros(3, np.float32)})
    before = path.read_bytes()
    with pytest.raises(WeightsFileError, match="'b' is of type uint16"):
        write(path, {"a": np.ones(3, np.float32), "b": np.ones(3, np.uint16)})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WeightsFileError, match="No space left on device"):
        write(path, {"a": np.ones(3, np.float32)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w.pth"]


def test_written_files_have_ordinary_permissions_and_follow_links(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        (tmp_path / "link.pth").symlink_to(tmp_path / "real.pth")
        write(tmp_path / "link.pth", {"a": np.zeros(1, np.float32)})
    finally:
        os.umask(mask)
    assert (tmp_path / "link.pth").is_symlink() and (tmp_path / "real.pth").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("name", "tensors", "says"),
    [
        ("w.bin", {"a": np.zeros(1)}, "give one of .pth, .pt, .safetensors"),
        ("w", {"a": np.zeros(1)}, "give one of"),
        ("no/w.pth", {"a": np.zeros(1)}, "the folder does not exist"),
        ("w.pth", {0: np.zeros(1)}, "the name 0 is not text"),
        ("w.pth", {"a": np.array(["x"])}, "convert it"),
        ("w.safetensors", {"a": np.array([None])}, "convert it"),
        ("w.safetensors", {"a": np.zeros(1, np.complex128)}, "convert it"),
    ],
)
def test_what_cannot_be_written(name: str, tensors: dict[Any, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match=says):
        write(tmp_path / name, tensors)
    assert not list(tmp_path.iterdir())


def test_check_finite() -> None:
    good = expected()
    check_finite(good, "w.pth")
    bad = {
        **good,
        "conv.weight": np.array([1, np.nan], np.float32),
        "bfloat16": np.array([np.inf], ml_dtypes.bfloat16),
        "complex64": np.array([complex(0, np.nan)], np.complex64),
    }
    with pytest.raises(
        WeightsFileError, match=r"w\.pth hold NaN or infinity in 'conv.weight', 'bfloat16', 'complex64'; "
    ):
        check_finite(bad, "w.pth")


def test_the_same_weights_give_the_same_bytes(tmp_path):
    """Also in another process, where the library's tables of metadata are in another order."""
    program = (
        "import sys, numpy as np, weights_conversion as w; "
        "w.write(sys.argv[1], {'a': np.arange(3.0), 'ü': np.ones((2, 2), 'int32')}, metadata={k: k for k in 'fedcba'})"
    )
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for file in files:
        subprocess.run([sys.executable, "-c", program, file], check=True)
    first, *others = (file.read_bytes() for file in files)
    assert all(other == first for other in others)
    tensors = read(files[0])
    assert list(tensors) == ["a", "ü"] and tensors["a"].tolist() == [0, 1, 2]
