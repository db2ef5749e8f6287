"""Makes the files of `fixtures/`: the same few tensors in each of torch's three formats, and in safetensors.

    python tests/weights_conversion/make_fixtures.py      (needs torch and safetensors; the tests need neither)

torch itself writes `zip.pth`, `stream.pth`, `checkpoint.pth` and `module.pth`. It has not written the tar format since
0.1, so `tar.pth` is put together here in the layout of torchvision's `resnet18-5c106cde.pth` (members, their order, pax
headers, opcodes), and torch reads it back before it is kept. The values come from `numpy.random.RandomState`, whose
stream is frozen; the tests call `expected()` for them.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"


def expected() -> dict[str, tuple[np.ndarray, str]]:
    """Returns, by name, the values and torch's name of the type. bfloat16 comes as the float32 of the same values."""
    random = np.random.RandomState(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape)

    base = normal(4, 6).astype(np.float32)
    return {
        "conv.weight": (normal(4, 3, 3, 3).astype(np.float32), "float32"),
        "bn.running_mean": (normal(4).astype(np.float32), "float32"),
        "bn.num_batches_tracked": (np.array(2**40 + 7, np.int64), "int64"),
        "transposed": (normal(3, 5).T, "float64"),
        "shared.whole": (base, "float32"),
        "shared.part": (base[1:, ::2], "float32"),
        "expanded": (np.broadcast_to(np.float32(0.5), (3, 4)), "float32"),
        "empty": (np.zeros((0, 7), np.float32), "float32"),
        "half": (normal(5).astype(np.float16), "float16"),
        "bfloat16": ((random.randint(-100, 100, 6) / 8).astype(np.float32), "bfloat16"),
        "int32": (random.randint(-(2**31), 2**31, 3).astype(np.int32), "int32"),
        "int16": (random.randint(-(2**15), 2**15, 3).astype(np.int16), "int16"),
        "int8": (random.randint(-128, 128, 3).astype(np.int8), "int8"),
        "uint8": (random.randint(0, 256, 3).astype(np.uint8), "uint8"),
        "bool": (random.randint(0, 2, 9) == 1, "bool"),
        "complex64": ((normal(2, 2) + 1j * normal(2, 2)).astype(np.complex64), "complex64"),
        "complex128": (normal(2) + 1j * normal(2), "complex128"),
    }


TAR_NAMES = ("conv.weight", "bn.running_mean", "bn.num_batches_tracked", "transposed", "shared.whole", "shared.part")


def _torch_tensors() -> OrderedDict[str, Any]:
    """The tensors as a module would hold them: parameters, views, an expanded scalar, `_metadata`."""
    import torch

    tensors: OrderedDict[str, Any] = OrderedDict()
    for name, (values, dtype) in expected().items():
        tensors[name] = torch.from_numpy(np.array(values)).to(getattr(torch, dtype))
    tensors["transposed"] = torch.from_numpy(np.ascontiguousarray(expected()["transposed"][0].T)).t()
    tensors["shared.part"] = tensors["shared.whole"][1:, ::2]
    tensors["expanded"] = torch.tensor(0.5).expand(3, 4)
    tensors["conv.weight"] = torch.nn.Parameter(tensors["conv.weight"])
    tensors._metadata = OrderedDict({"": {"version": 1}, "bn": {"version": 2}})  # type: ignore[attr-defined]
    return tensors


def _tar() -> bytes:
    """The tar format of torch 0.1: what `resnet18-5c106cde.pth` consists of, opcode for opcode."""
    kinds = {np.dtype(np.float32): "Float", np.dtype(np.float64): "Double", np.dtype(np.int64): "Long"}
    values = {name: expected()[name][0] for name in TAR_NAMES}
    values["transposed"] = np.ascontiguousarray(values["transposed"].T)  # as it lies in memory; the stride turns it
    keys = {name: 404_880_640 + 64 * index for index, name in enumerate(TAR_NAMES)}
    roots = {name: 405_088_960 + 64 * index for index, name in enumerate(TAR_NAMES) if name != "shared.part"}

    def dumps(value: Any) -> bytes:
        return pickle.dumps(value, protocol=2)

    def record(first: bytes, second: bytes, kind: str) -> bytes:
        return b"\x80\x02" + first + second + b"ctorch\n" + kind.encode() + b"\nq\x01\x87q\x02."

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    storages = dumps(len(roots))
    for name, root in roots.items():
        kind = kinds[values[name].dtype] + "Storage"
        storages += record(integer(root), b"X\x03\x00\x00\x00cpuq\x00", kind)
        storages += struct.pack("<q", values[name].size) + values[name].tobytes()
    view = (
        405_100_000  # "shared.part" begins in the second row of "shared.whole": a view of that storage, from there on
    )
    storages += dumps([(view, roots["shared.whole"], 6, 18)])

    tensors = dumps(len(keys))
    for name, key in keys.items():
        array = values[name]
        shape, stride, root = array.shape, [s // array.itemsize for s in array.strides], roots.get(name, view)
        if name == "transposed":
            shape, stride = shape[::-1], stride[::-1]
        tensors += record(integer(key), integer(root), kinds[array.dtype] + "Tensor")
        # The real file holds rubbish in the four bytes after the number of dimensions: 7 in it.
        tensors += struct.pack(f"<2i{2 * len(shape) + 1}q", len(shape), 7, *shape, *stride, 0)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    body = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01("
    for name in TAR_NAMES:
        reference = text(str(keys[name])) + b"Q"
        if name == "conv.weight":
            reference = b"ctorch.nn.parameter\nParameter\nq\x03)\x81q\x04(" + reference + b"NN\x88\x89tq\x06b"
        body += text(name) + reference
    body += b"u."

    facts = {"little_endian": True, "protocol_version": 1000, "type_sizes": {"int": 4, "short": 2, "long": 4}}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (
            ("sys_info", dumps(facts)),
            ("pickle", body),
            ("tensors", tensors),
            ("storages", storages),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = (
                len(content),
                0o600,
                1483719550.98166,
            )  # the fraction needs a pax header
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def main() -> None:
    """Writes the fixtures, and has torch read them back."""
    import safetensors.torch
    import torch

    FIXTURES.mkdir(exist_ok=True)
    tensors = _torch_tensors()
    torch.save(tensors, FIXTURES / "zip.pth")
    torch.save(tensors, FIXTURES / "stream.pth", _use_new_zipfile_serialization=False)
    few = OrderedDict((name, tensors[name]) for name in ("conv.weight", "bn.num_batches_tracked"))
    checkpoint = {
        "epoch": 3,
        "lr": 0.1,
        "state_dict": few,
        "optimizer": {"state": {}, "param_groups": [{"params": [0]}]},
    }
    torch.save(checkpoint, FIXTURES / "checkpoint.pth")
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), FIXTURES / "module.pth")
    (FIXTURES / "tar.pth").write_bytes(_tar())
    plain = {name: t.detach().clone().contiguous() for name, t in tensors.items() if not name.startswith("complex128")}
    safetensors.torch.save_file(plain, FIXTURES / "plain.safetensors")

    for name in ("zip.pth", "stream.pth", "tar.pth"):
        loaded = torch.load(FIXTURES / name, weights_only=name != "tar.pth")
        assert list(loaded) == (list(TAR_NAMES) if name == "tar.pth" else list(tensors)), name
        for key, tensor in loaded.items():
            assert tensor.dtype == tensors[key].dtype and torch.equal(tensor, tensors[key]), (name, key)
    for path in sorted(FIXTURES.iterdir()):
        print(f"{path.name:20} {path.stat().st_size:7,} bytes")


if __name__ == "__main__":
    main()
