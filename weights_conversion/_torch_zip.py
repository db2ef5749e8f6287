"""torch's zip format, read and written without torch.

That of torch 1.6 and later: `<any>/data.pkl`, `<any>/byteorder`, and a stored member `<any>/data/<key>` for each
storage.
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from weights_conversion._candidates import Reading, state_dict_of
from weights_conversion._torch_arrays import to_arrays
from weights_conversion._torch_objects import (
    CUT_SHORT,
    LONGEST_KEY,
    STORAGE_NAMES,
    Storage,
    StorageType,
    UnreadableError,
)
from weights_conversion._torch_pickle import load

_METADATA = "archive/metadata.json"
_LARGEST_TABLE = 8 << 20  # bytes: some 70,000 storages of torch's
_LARGEST_METADATA = 1 << 24  # bytes
# What zipfile raises for files that are damaged, or encrypted (RuntimeError).
_ZIP_ERRORS: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError)
_ZIP_ERRORS += (RuntimeError, OverflowError, ValueError, LookupError)


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
                    if len(key) <= LONGEST_KEY:
                        return Storage(key, dtype, count)
            raise ValueError

        runs: dict[str, memoryview] = {}

        def elements(wanted: Storage) -> memoryview:
            if wanted.key not in runs:
                runs[wanted.key] = content(f"data/{wanted.key}")
            return runs[wanted.key]

        value, _ = load(content("data.pkl"), 0, storage)
        return to_arrays(state_dict_of(value, reading), elements, order, len(data))


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
        if table == 0xFFFFFFFF and at >= 76:  # zip64: its own record, then where that is, then this record
            (table,) = struct.unpack_from("<Q", end, at - 76 + 40)
        if table > _LARGEST_TABLE:
            raise UnreadableError("its archive has more members than that of any model")
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS:
        raise UnreadableError("it has no table of contents at its end, as a zip file must", CUT_SHORT) from None


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
    # torch stores its members as they are. A compressed or overlapping member could claim far more than the file holds.
    if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members.values()):
        raise UnreadableError("its members are compressed, which torch never does", "save it again with torch.save")
    if sum(m.file_size for m in members.values()) > size:
        raise UnreadableError("its members claim more bytes than the file has")
    return members


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
