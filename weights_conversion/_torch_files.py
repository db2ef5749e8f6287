"""torch's three file formats, read without torch, and its zip format, written without torch.

* zip (torch 1.6 and later): `<any>/data.pkl`, `<any>/byteorder`, and one stored member `<any>/data/<key>` per storage.
* the pickle stream before it: a magic number, a protocol number, system facts, the object, the list of storage keys,
  each a pickle; then, per key, an int64 count and the elements.
* tar (torch 0.1): the members `sys_info`, `storages`, `tensors` and `pickle`.

The last two hold little-endian numbers on every machine (torch swaps them when it writes); the zip says which it holds.
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from weights_conversion._candidates import SAVE_PLAIN, Reading, state_dict_of
from weights_conversion._torch_pickle import (
    CUT_SHORT,
    STORAGE_NAMES,
    Opaque,
    Steps,
    Storage,
    StorageType,
    Tensor,
    TensorType,
    UnreadableError,
    load,
    make_tensor,
)

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
# Tensors may share a storage or repeat its elements, so what is returned can be larger than the file. A small file must
# not ask for all memory, though: 16 times its size, and a megabyte for the tiny ones, is more than weights ever need.
_GROWTH, _SLACK = 16, 1 << 20
MOST_BYTES = 4 << 30
"""What the tensors of a file may take: the largest trunk here has 1.2 GiB in float32."""
_LONGEST_KEY = 256  # of a storage; each is copied for every tensor

Elements = Callable[[Storage], memoryview]


# ------------------------------------------------------------------------------------------------ the three containers


def read_zip(file: IO[bytes], data: memoryview, reading: Reading) -> dict[str, np.ndarray]:
    """Reads the zip format. `file` is open for reading, `data` the whole of it, mapped.

    Raises:
        UnreadableError: The archive is cut short or damaged, is another kind of zip, or holds no state_dict.
    """
    with _open_zip(file) as archive:
        members = _torch_members(archive, len(data))

        def content(name: str) -> memoryview:
            if name not in members:
                raise UnreadableError(f"its archive lacks the member {name!r}")
            return _stored(data, members[name], name)

        order = bytes(content("byteorder")).decode("ascii", "replace").strip() if "byteorder" in members else "little"
        if order not in ("little", "big"):
            raise UnreadableError(f"it states an unknown byte order, {order[:20]!r}")

        def storage(saved: Any) -> Storage:
            match saved:
                case ("storage", StorageType(dtype), str(key), str(), int(count)) if count >= 0:
                    if len(key) <= _LONGEST_KEY:
                        return Storage(key, dtype, count)
            raise ValueError

        runs: dict[str, memoryview] = {}

        def elements(wanted: Storage) -> memoryview:
            if wanted.key not in runs:
                runs[wanted.key] = content(f"data/{wanted.key}")
            return runs[wanted.key]

        value, _ = load(content("data.pkl"), 0, storage)
        return _arrays(state_dict_of(value, reading), elements, order, len(data))


def _stored(data: memoryview, member: zipfile.ZipInfo, name: str) -> memoryview:
    """Returns what a member holds, as part of the mapped file: reading it would copy what may be gigabytes."""
    local = data[member.header_offset : member.header_offset + 30]
    if len(local) == 30 and local[:4] == b"PK\3\4" and not member.flag_bits & 1:  # 1: encrypted
        start = member.header_offset + 30 + sum(struct.unpack_from("<HH", local, 26))
        run = data[start : start + member.file_size]
        if len(run) == member.file_size and zlib.crc32(run) == member.CRC:
            return run
    raise UnreadableError(f"its member {name!r} does not match its checksum or is cut short")


def read_zip_metadata(file: IO[bytes]) -> Any:
    """Returns what `write_zip` put beside the tensors, parsed from JSON; an empty dict where there is nothing.

    Raises:
        UnreadableError: The archive is cut short or damaged.
    """
    try:
        with _open_zip(file) as archive:
            if _METADATA not in archive.namelist():
                return {}
            member = archive.getinfo(_METADATA)
            # Ours is stored as it is; what is packed might unpack to far more than it claims.
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size > _LARGEST_METADATA:
                return {}
            return json.loads(archive.read(member))
    except _ZIP_ERRORS:
        raise UnreadableError("its archive can't be read", CUT_SHORT) from None


def _open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """Opens an archive, once its table of contents is known to be of a length that can be read."""
    try:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 22))
        end = file.read()
        at = end.rfind(b"PK\5\6")
        (table,) = struct.unpack_from("<I", end, at + 12) if at >= 0 else (0,)
        if table == 0xFFFFFFFF and at >= 76:  # zip64: its own record, then where that is, then this one
            (table,) = struct.unpack_from("<Q", end, at - 76 + 40)
        if table > _LARGEST_TABLE:
            raise UnreadableError("its archive has more members than that of any model")
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS:
        raise UnreadableError("it has no table of contents at its end, as a zip file must", CUT_SHORT) from None


_METADATA = "archive/metadata.json"
_LARGEST_TABLE = 8 << 20  # bytes: some 70,000 storages of torch's
_LARGEST_METADATA = 1 << 20  # bytes
_MOST_TAR_MEMBERS = 1000  # torch's have four; a gigabyte of empty ones would take a minute to count
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,  # encrypted
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
)


def _torch_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    pickles = [m.filename for m in archive.infolist() if m.filename.rsplit("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1:
        arrays = any(m.filename.endswith(".npy") for m in archive.infolist())
        kind = "NumPy's .npz" if arrays else "a zip archive of something else"
        raise UnreadableError(f"it is not a weights file but {kind}", "give a .pth, .pt or .safetensors file")
    prefix = pickles[0].removesuffix("data.pkl")
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.filename.startswith(prefix):
            members[member.filename.removeprefix(prefix)] = member
    if "constants.pkl" in members or any(name.startswith("code/") for name in members):
        raise UnreadableError(
            "it is a TorchScript program, not weights", "load it with torch.jit.load and save state_dict()"
        )
    # torch stores its members as they are. A compressed or overlapping one could claim far more than the file holds.
    if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members.values()):
        raise UnreadableError("its members are compressed, which torch never does", "save it again with torch.save")
    if sum(m.file_size for m in members.values()) > size:
        raise UnreadableError("its members claim more bytes than the file has")
    return members


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
        runs[name], at = _run(data, at, types[name].itemsize)
    return _arrays(wanted, _lookup(runs), "little", len(data))


def _key(key: Any) -> str:
    if isinstance(key, str | bytes) and len(key) > _LONGEST_KEY:
        raise ValueError
    if isinstance(key, bytes):
        return key.decode("latin-1")
    return str(key) if isinstance(key, str) or (type(key) is int and abs(key) < 2**64) else ""


def _run(data: memoryview, at: int, itemsize: int) -> tuple[memoryview, int]:
    """A storage in the two older formats: how many elements, then the elements."""
    if at + 8 > len(data):
        raise UnreadableError("it ends before its last storage", CUT_SHORT)
    (count,) = struct.unpack_from("<q", data, at)
    if count < 0:
        raise UnreadableError("it states a negative size")
    end = at + 8 + count * itemsize
    if end > len(data):
        raise UnreadableError(f"it ends {end - len(data):,} bytes before the end of a storage", CUT_SHORT)
    return data[at + 8 : end], end


def _lookup(runs: Mapping[str, memoryview]) -> Elements:
    def elements(wanted: Storage) -> memoryview:
        if wanted.key not in runs:
            raise UnreadableError("it refers to a storage that it does not hold")
        return runs[wanted.key]

    return elements


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
    return _arrays(state_dict_of(value, reading), _lookup(runs), "little", len(data))


def _tar_storages(data: memoryview, steps: Steps) -> tuple[dict[str, Storage], dict[str, memoryview]]:
    count, at = _count(data, 0)
    storages: dict[str, Storage] = {}
    runs: dict[str, memoryview] = {}
    for _ in range(count):
        record, at = load(data, at, steps=steps)
        match record:
            case (int() | str() as saved, str(), StorageType(np.dtype() as dtype)):
                key = _key(saved)
                runs[key], at = _run(data, at, dtype.itemsize)
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


# ------------------------------------------------------------------------------------------ from descriptions to arrays


def _arrays(tensors: Mapping[str, Tensor], elements: Elements, order: str, size: int) -> dict[str, np.ndarray]:
    budget = min(_GROWTH * size + _SLACK, MOST_BYTES)
    result: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        budget -= _number(tensor.shape) * tensor.dtype.itemsize
        if budget < 0:
            raise UnreadableError("its tensors claim far more elements than the file holds, or than any model here has")
        try:
            result[name] = _array(tensor, elements(tensor.storage), order)
        except UnreadableError as error:
            raise UnreadableError(f"tensor {name[:200]!r}: {error.reason}", error.remedy) from None
    return result


def _number(shape: tuple[int, ...]) -> int:
    number = 1
    for length in shape:
        number *= length
    return number


def _array(tensor: Tensor, run: memoryview, order: str) -> np.ndarray:
    """Copies a tensor out of the bytes of its storage: an owned, native, C-contiguous array."""
    storage, dtype = tensor.storage, tensor.dtype
    start, width = (
        (storage.first * storage.dtype.itemsize, storage.dtype.itemsize) if storage.dtype else (storage.first, 1)
    )
    if start + storage.count * width > len(run):
        raise UnreadableError("its storage is longer than what the file holds of it", CUT_SHORT)
    count = storage.count * width // dtype.itemsize
    number = _number(tensor.shape)
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


# ----------------------------------------------------------------------------------------------------------- writing


def write_zip(file: IO[bytes], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes the zip format: what `torch.load(weights_only=True)` reads as an OrderedDict of tensors, in this order.

    Raises:
        UnreadableError: An array is of a type that torch has no storage for; nothing of the file can be used then.
    """
    chunks = [b"\x80\x02ccollections\nOrderedDict\n)R("]  # PROTO 2; OrderedDict(); MARK
    arrays: list[np.ndarray] = []
    for name, array in tensors.items():
        native = array.dtype.newbyteorder("=")
        if native not in STORAGE_NAMES:
            raise UnreadableError(
                f"{name!r} is of type {array.dtype}, which torch's files have no storage for", "convert it"
            )
        chunks += [_text(name), _tensor(len(arrays), array, STORAGE_NAMES[native])]
        arrays.append(array)
    chunks.append(b"u.")  # SETITEMS, STOP
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "archive/data.pkl", b"".join(chunks))
        _add(archive, "archive/byteorder", b"little")
        for index, array in enumerate(arrays):
            _add(archive, f"archive/data/{index}", _little_endian(array))
        _add(archive, "archive/version", b"3\n")
        if metadata:
            _add(archive, _METADATA, json.dumps(dict(metadata)).encode())


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(9, "little")
    return b"\x8a" + bytes([len(raw)]) + raw


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


def _tensor(index: int, array: np.ndarray, storage_name: str) -> bytes:
    """The opcodes of `_rebuild_tensor_v2(("storage", type, key, place, count), 0, shape, stride, False, {})`."""
    stride = [1] * array.ndim
    for axis in range(array.ndim - 2, -1, -1):
        stride[axis] = stride[axis + 1] * max(array.shape[axis + 1], 1)
    reference = _text("storage") + b"ctorch\n" + storage_name.encode() + b"\n" + _text(str(index)) + _text("cpu")
    arguments = (
        b"((" + reference + _integer(array.size) + b"tQ" + _integer(0) + _tuple(array.shape) + _tuple(tuple(stride))
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"\x89ccollections\nOrderedDict\n)RtR"


def _little_endian(array: np.ndarray) -> bytes:
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).tobytes()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name)  # its date is 1980-01-01: the same weights give the same bytes
    # torch starts each member at a multiple of 64, so that it can be memory-mapped. The padding is an extra field.
    header = archive.start_dir + 30 + len(name) + 4
    padding = -header % 64
    member.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(member, content)
