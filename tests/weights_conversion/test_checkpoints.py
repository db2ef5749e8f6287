"""Checkpoints as people have them: wrapped, nested, with other things beside the weights, of which nothing is run."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import io
import json
import pathlib
import pickle
import struct
import time
import tracemalloc
import types
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from facefeat_jax.models import MultiTaskModel
from facefeat_jax.runs.spec import ModelSpec
from weights_conversion import as_notebooks, read, read_metadata, recognise, to_flax, to_torch, write
from weights_conversion.files import WeightsFileError

from ..made import filled

NAMES = ("backbone.conv1.weight", "backbone.bn1.bias", "gender_head.0.bias")


class OwnConfig:
    """A class of somebody's own, beside the weights."""

    def __init__(self) -> None:
        self.rate = 0.1


class Colour(enum.Enum):
    RED = 1


class FakeTensor:
    """Pickles as torch's float tensor of one element over storage `key`."""

    def __init__(self, key: int) -> None:
        self.key = key


class _Storage:
    def __init__(self, key: int) -> None:
        self.key = key


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """The Python pickler, which can be taught to write names that are not installed here."""

    def persistent_id(self, value: Any) -> Any:
        return (
            ("storage", _Global("torch", "FloatStorage"), str(value.key), "cpu", 1)
            if isinstance(value, _Storage)
            else None
        )

    def reduce_tensor(self, value: FakeTensor) -> None:
        self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
        self.save((_Storage(value.key), 0, (1,), (1,), False, collections.OrderedDict()))
        self.write(pickle.REDUCE)

    def save_global_name(self, value: _Global) -> None:
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())

    dispatch: ClassVar = {**pickle._Pickler.dispatch}  # type: ignore[attr-defined]


class _Global:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


_Pickler.dispatch[FakeTensor] = _Pickler.reduce_tensor
_Pickler.dispatch[_Global] = _Pickler.save_global_name


def saved(path: Path, value: Any, *, tensors: int = 20) -> Path:
    """Writes what torch.save would of a value whose tensors are `FakeTensor`s; number n holds the value n."""
    file = io.BytesIO()
    _Pickler(file, 2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", file.getvalue())
        for number in range(tensors):
            archive.writestr(f"a/data/{number}", struct.pack("<f", number))
    return path


def weights(first: int = 0, prefix: str = "") -> dict[str, FakeTensor]:
    return {prefix + name: FakeTensor(first + number) for number, name in enumerate(NAMES)}


def read_noted(path: Path, **options: Any) -> tuple[dict[str, float], list[str]]:
    notes: list[str] = []
    return {name: float(array[0]) for name, array in read(path, note=notes.append, **options).items()}, notes


PLAIN = {name: float(number) for number, name in enumerate(NAMES)}

EXTRAS: dict[str, Any] = {
    "options": argparse.Namespace(lr=0.1, folder=pathlib.PurePosixPath("/data"), deep=argparse.Namespace(a=1)),
    "paths": [pathlib.PurePosixPath("/a"), pathlib.PureWindowsPath("C:/b")],
    "a class of one's own": OwnConfig(),
    "the class itself": OwnConfig,
    "an enum": Colour.RED,
    "an enum for a key": {Colour.RED: 1, (1, 2): 3, 2.5: 4, 2**80: 5},
    "dates": [datetime.datetime(2024, 1, 1), datetime.timedelta(1), datetime.date(2024, 1, 1)],
    "numpy": [np.float64(3), np.arange(4.0), np.random.RandomState(0).get_state(), np.dtype("f4")],
    "sets": [{1, 2}, frozenset("a"), bytearray(b"x"), 1 + 2j, slice(3), range(4)],
    "dicts": [collections.defaultdict(list, a=[1]), collections.Counter("abca"), collections.OrderedDict(a=1)],
    "a deque": collections.deque([1, 2], 5),
    "a namespace": types.SimpleNamespace(a=1),
    "a partial function": functools.partial(int, base=2),
    "an optimizer": {"state": {0: {"step": 3.0, "exp_avg": FakeTensor(9)}}, "param_groups": [{"lr": 1e-3}]},
    "exceptions": [ValueError("x"), argparse.ArgumentTypeError("x")],
}


@pytest.mark.parametrize("extra", list(EXTRAS))
def test_what_lies_beside_the_weights_is_passed_over(extra: str, tmp_path: Path) -> None:
    path = saved(
        tmp_path / "w.pth", {"epoch": 3, "first": EXTRAS[extra], "state_dict": weights(), "last": EXTRAS[extra]}
    )
    assert read_noted(path) == (PLAIN, [])


def test_a_class_whose_making_would_do_something_is_never_made(tmp_path: Path) -> None:
    class Ran(Exception):
        pass

    global Loud

    class Loud:  # type: ignore[no-redef]
        def __setstate__(self, state: Any) -> None:
            raise Ran

    Loud.__qualname__ = "Loud"  # type: ignore[name-defined]
    loud = Loud()  # type: ignore[name-defined]
    loud.a = 1  # type: ignore[attr-defined]
    path = saved(tmp_path / "w.pth", {"state_dict": weights(), "loud": loud})
    assert read_noted(path)[0] == PLAIN
    with pytest.raises(Ran):
        pickle.loads(pickle.dumps(loud))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "network", "model_state", "weights"])
def test_weights_under_a_key(key: str, tmp_path: Path) -> None:
    assert read_noted(saved(tmp_path / "w.pth", {key: weights(), "epoch": 3})) == (PLAIN, [])
    assert read_noted(saved(tmp_path / "n.pth", {"state": {key: weights()}, "epoch": 3})) == (PLAIN, [])


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "net.", "_orig_mod.module.", "model.module."])
def test_a_wrapper_of_all_names_is_taken_off_and_said(wrapper: str, tmp_path: Path) -> None:
    tensors, notes = read_noted(saved(tmp_path / "w.pth", {"state_dict": weights(prefix=wrapper)}))
    assert tensors == PLAIN
    assert len(notes) == 1 and repr(wrapper) in notes[0] and "w.pth" in notes[0]
    write(tmp_path / "w.safetensors", {wrapper + name: np.float32([number]) for number, name in enumerate(NAMES)})
    assert read_noted(tmp_path / "w.safetensors")[0] == PLAIN


def test_an_average_by_torch_loses_its_count(tmp_path: Path) -> None:
    tensors, notes = read_noted(saved(tmp_path / "w.pth", {"n_averaged": FakeTensor(7), **weights(prefix="module.")}))
    assert tensors == PLAIN and "an average of weights" in notes[0]


def test_a_wrapper_stays_where_it_is_not_of_all_names_or_nothing_known_is_behind_it(tmp_path: Path) -> None:
    mixed = {**weights(prefix="module."), "other": FakeTensor(5)}
    assert set(read_noted(saved(tmp_path / "w.pth", mixed))[0]) == set(mixed)
    unknown = {"model.layer.weight": FakeTensor(0), "model.layer.bias": FakeTensor(1)}
    assert read_noted(saved(tmp_path / "u.pth", unknown)) == ({"model.layer.weight": 0.0, "model.layer.bias": 1.0}, [])


@pytest.mark.parametrize("average", ["state_dict_ema", "ema", "model_ema", "ema_state_dict", "averaged_model", "swa"])
def test_between_weights_and_their_average_the_choice_is_said(average: str, tmp_path: Path) -> None:
    for value in ({"state_dict": weights(), average: weights(10)}, {average: weights(10), "model": weights()}):
        path = saved(tmp_path / "w.pth", value)
        tensors, notes = read_noted(path)
        assert tensors == PLAIN
        assert len(notes) == 1 and average in notes[0] and "--key" in notes[0] and "\n" not in notes[0]
        assert set(read_noted(path, key=average)[0].values()) == {10.0, 11.0, 12.0}
    path = saved(tmp_path / "m.pth", {"model": weights(), average: {"module": weights(10), "decay": 0.9}})
    assert read_noted(path)[0] == PLAIN and f"{average}.module" in read_noted(path)[1][0]
    path = saved(tmp_path / "f.pth", {**weights(prefix="model."), **weights(10, prefix="ema.")})
    assert read_noted(path)[0] == PLAIN and set(read_noted(path, key="ema")[0].values()) == {10.0, 11.0, 12.0}
    # The same tensors twice are no choice; an average alone is taken.
    same = weights()
    assert read_noted(saved(tmp_path / "s.pth", {"state_dict": same, average: same})) == (PLAIN, [])
    assert read_noted(saved(tmp_path / "a.pth", {average: weights(), "epoch": 3})) == (PLAIN, [])


def test_between_other_sets_there_is_no_saying(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"teacher": weights(), "student": weights(10)})
    with pytest.raises(WeightsFileError, match=r"several sets of weights \('teacher', 'student'\); .*--key"):
        read(path)
    assert read_noted(path, key="teacher")[0] == PLAIN
    for value in ({"teacher": weights()}, {"teacher": weights(), "loss": {"weight": FakeTensor(9)}}):
        assert read_noted(saved(tmp_path / "w.pth", value)) == (PLAIN, [])
    for key in ("pupil", "epoch"):
        with pytest.raises(WeightsFileError, match=f"no weights under '{key}'"):
            read(path, key=key)
    with pytest.raises(WeightsFileError, match="one set of weights"):
        read(saved(tmp_path / "p.pth", weights()), key="state_dict")


@pytest.mark.parametrize("inside", [lambda whole: whole, lambda whole: {"model": whole, "epoch": 3}])
def test_a_whole_module_is_called_that(inside, tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError) as caught:
        read(saved(tmp_path / "w.pth", inside(OwnConfig())))
    assert "OwnConfig" in str(caught.value) and "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- other heads


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """A state dict whose heads are the notebook's, on a trunk of one tensor."""
    stream = np.random.RandomState(0)
    result = {"backbone.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    for task, outputs in (("gender", 2), ("shirt", 8)):
        result[f"{task}_head.0.weight"] = stream.standard_normal((256, 512)).astype(np.float32)
        result[f"{task}_head.0.bias"] = stream.standard_normal(256).astype(np.float32)
        result[f"{task}_head.2.weight"] = stream.standard_normal((outputs, 256)).astype(np.float32)
        result[f"{task}_head.2.bias"] = stream.standard_normal(outputs).astype(np.float32)
    return result


def test_two_outputs_are_folded_to_the_same_probability(tensors: dict[str, np.ndarray]) -> None:
    notes: list[str] = []
    folded = as_notebooks(tensors, note=notes.append)
    hidden = np.random.RandomState(1).standard_normal(256)
    wide = tensors["gender_head.2.weight"] @ hidden + tensors["gender_head.2.bias"]
    one = folded["gender_head.2.weight"] @ hidden + folded["gender_head.2.bias"]
    assert one.shape == (1,) and folded["gender_head.2.weight"].dtype == np.float32
    assert 1 / (1 + np.exp(-one[0])) == pytest.approx(np.exp(wide[1]) / np.exp(wide).sum(), abs=1e-6)
    assert folded["shirt_head.2.weight"] is tensors["shirt_head.2.weight"]
    assert len(notes) == 1 and "gender" in notes[0]


@pytest.mark.parametrize(("before", "after"), [(0, 3), (1, 4), (1, 3)])
def test_dropout_in_a_head_moves_its_layers(tensors: dict[str, np.ndarray], before: int, after: int) -> None:
    notes: list[str] = []
    moved = {
        name.replace("shirt_head.0", f"shirt_head.{before}").replace("shirt_head.2", f"shirt_head.{after}"): array
        for name, array in tensors.items()
    }
    back = as_notebooks(moved, note=notes.append)
    assert back.keys() == tensors.keys()
    assert back["shirt_head.2.weight"] is tensors["shirt_head.2.weight"]
    assert any("shirt" in note and "Dropout" in note for note in notes)


def test_what_profilers_leave_is_left_out(tensors: dict[str, np.ndarray]) -> None:
    notes: list[str] = []
    extra = {"total_ops": np.zeros(1), "backbone.conv1.total_ops": np.zeros(1), "total_params": np.zeros(1)}
    assert as_notebooks({**tensors, **extra}, note=notes.append).keys() == tensors.keys()
    assert any("3 entries of a profiler" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"backbone.conv1.weight": "backbone.conv1.weight_orig"}, "prune.remove"),
        ({"gender_head.0.weight": "gender_head.0.parametrizations.weight.original0"}, "remove_parametrizations"),
        ({"gender_head.0.weight": "gender_head.0.weight_v"}, "weight_norm"),
        (
            {"gender_head.0.weight": "gender_head.4.weight", "gender_head.0.bias": "gender_head.4.running_mean"},
            "batch norm",
        ),
    ],
)
def test_the_message_names_the_cause(change: dict[str, str], cause: str) -> None:
    model = filled(ModelSpec("resnet18", {"gender": ("female", "male")}, 32, "upright", "random").abstract())
    state_dict = {change.get(name, name): array for name, array in to_torch(model).items()}
    with pytest.raises(Exception, match=cause) as caught:
        to_flax(as_notebooks(state_dict, note=lambda line: None), model)
    assert "\n" not in str(caught.value)
    assert isinstance(model, MultiTaskModel) and recognise(to_torch(model)) == "resnet18"


# ----------------------------------------------------------------------------------------------------- bounds of a file


def stream_of(body: bytes) -> bytes:
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
    return head + body + pickle.dumps([], 2)


def _number(value: int) -> bytes:
    raw = value.to_bytes(24, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def many_of_one_hash(sign: int) -> bytes:
    return b"\x80\x02}(" + b"".join(_number(sign * (2**61 - 1) * n) + b"N" for n in range(1, 60_000)) + b"u."


def _referring_often(count: int, length: int) -> bytes:
    """One storage of a very long name, and many tensors that refer to it."""
    name = b"X" + struct.pack("<I", length) + b"k" * length + b"q\x00"
    reference = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + b"%b" + b"X\x03\x00\x00\x00cpuK\x01NtQ"
    return b"\x80\x02](" + reference % name + b"".join(reference % b"h\x00" for _ in range(count)) + b"e."


SLOW: dict[str, bytes] = {
    "keys of one hash": stream_of(many_of_one_hash(60_000)),
    "keys of one hash, negative": stream_of(
        b"\x80\x02}(" + b"".join(_number(-(2**61) * n) + b"N" for n in range(60_000)) + b"u."
    ),
    "deep": stream_of(b"\x80\x02)" + b"\x85" * 400_000 + b"."),
    "lists in lists": stream_of(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
    "a mapping in many places": stream_of(
        b"\x80\x02}(X\x01\x00\x00\x00a}("
        + b"".join(b"K%cN" % (n % 200) for n in range(1000))
        + b"uq\x00"
        + b"".join(b"X\x05\x00\x00\x00%05dh\x00" % n for n in range(50_000))
        + b"u."
    ),
    "a long name of a storage": stream_of(_referring_often(20_000, 200_000)),
}


@pytest.mark.parametrize("case", list(SLOW))
def test_small_files_that_took_long_end_soon(case: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(SLOW[case])
    began = time.process_time()
    with pytest.raises(WeightsFileError):
        read(path)
    assert time.process_time() - began < 4


def memory_of_refusal(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(WeightsFileError):
            read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _sparse_zip(path: Path, member: int, count: int) -> None:
    """A zip whose one storage the disk never stored: `member` bytes of it, of which the pickle says `count` numbers."""
    pickled = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
    pickled += b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    pickled += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + _number(count) + b"tQK\x00K\x01\x85K\x01\x85\x89}tRs."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", b"")
    whole = path.read_bytes()
    at = whole.index(b"PK\x01\x02")
    last = whole.rindex(b"PK\x01\x02")
    table = bytearray(whole[at:])
    for offset in (20, 24):
        struct.pack_into("<I", table, last - at + offset, member)
    end = table.rindex(b"PK\x05\x06")
    struct.pack_into("<I", table, end + 16, at + member)
    with path.open("wb") as file:
        file.write(whole[:at])
        file.seek(at + member)
        file.write(table)


@pytest.mark.parametrize("count", [1, 1 << 26])
def test_a_large_storage_that_the_disk_never_stored_is_not_read(count: int, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    _sparse_zip(path, (1 << 28) + 8, count)
    assert path.stat().st_blocks * 512 < 1 << 20
    assert memory_of_refusal(path) < 1 << 20


@pytest.mark.parametrize("covered", [False, True])
def test_a_sparse_safetensors_file_is_not_copied(covered: bool, tmp_path: Path) -> None:
    path, size = tmp_path / "w.safetensors", 12 << 30
    entry = {"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}} if covered else {}
    header = json.dumps(entry).encode().ljust(128)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    assert memory_of_refusal(path) < 1 << 20


def test_an_archive_of_a_million_members_is_refused_unread(tmp_path: Path) -> None:
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    for count in (200_000, 1_000_000):
        table = entry * count
        large = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, len(table), 4)
        large += struct.pack("<IIQI", 0x07064B50, 0, 4 + len(table), 1)
        end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        (tmp_path / "w.pth").write_bytes(b"PK\3\4" + table + large + end)
        began = time.process_time()
        for function in (read, read_metadata):
            with pytest.raises(WeightsFileError, match="more members"):
                function(tmp_path / "w.pth")
        assert time.process_time() - began < 1
