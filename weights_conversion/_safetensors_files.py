"""safetensors files, through the library of that name where it can be trusted with what others wrote."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from weights_conversion._candidates import Reading
from weights_conversion._torch_arrays import MOST_BYTES
from weights_conversion._torch_objects import CUT_SHORT, DAMAGED, UnreadableError

_LARGEST_HEADER = 16 << 20  # bytes; torchvision's largest models have some 100 kB
_TYPES: dict[str, np.dtype] = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{"BOOL": np.dtype(np.bool_), "C64": np.dtype(np.complex64), "BF16": np.dtype(ml_dtypes.bfloat16)},
    **{"F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2)},
}


def read_safetensors(data: memoryview, reading: Reading) -> dict[str, np.ndarray]:
    """Reads the file of `reading`; `data` is the whole of it.

    Raises:
        UnreadableError: It is cut short or damaged, or holds no tensors, too large ones, or of a type that numpy lacks.
    """
    entries, start = _header(data, reading.path)
    if not entries:
        raise UnreadableError("it holds no tensors", "save model.state_dict()")
    if len(data) - start > MOST_BYTES:
        raise UnreadableError("its tensors take more than those of any model here", "give the weights of one model")
    result: dict[str, np.ndarray] = {}
    for name, entry in sorted(entries.items()):
        dtype = _TYPES.get(entry["dtype"])
        if dtype is None:
            raise UnreadableError(
                f"its tensor {name[:200]!r} is of type {entry['dtype']}, which is not supported", "convert it"
            )
        # The format is little-endian; plain bytes are read first because ml_dtypes' types have no byte order.
        plain = np.dtype(f"<u{dtype.itemsize}") if dtype.itemsize < 8 else dtype.newbyteorder("<")
        try:
            first, end = entry["data_offsets"]
            raw = np.frombuffer(data[start + first : start + end], plain)
            owned = np.empty(entry["shape"], plain.newbyteorder("=") if dtype.kind == "b" else dtype)
            owned.reshape(-1).view(plain.newbyteorder("="))[:] = raw
        except ValueError:
            raise UnreadableError(f"its tensor {name[:200]!r} has a shape that no array can have") from None
        result[name] = owned != 0 if dtype.kind == "b" else owned
    return result


def _header(data: memoryview, path: Path) -> tuple[dict[str, Any], int]:
    """Returns the entry of each tensor, and where their bytes begin, once the library has held them against the size.

    Without the tensors themselves: a file of many gigabytes that the disk never stored is soon made.
    """
    (size,) = struct.unpack_from("<Q", data)
    if size > len(data) - 8:
        raise UnreadableError(f"its header claims {size:,} bytes, more than the file has", CUT_SHORT)
    if size > _LARGEST_HEADER:
        raise UnreadableError(f"its header of {size:,} bytes is larger than that of any model")
    try:
        with safetensors.safe_open(path, framework="numpy"):
            header = json.loads(bytes(data[8 : 8 + size]))
    except safetensors.SafetensorError as error:
        text = " ".join(str(error).split())[:200]
        remedy = CUT_SHORT if "IncompleteBuffer" in text or "not fully covered" in text else DAMAGED
        raise UnreadableError(f"safetensors refuses it ({text})", remedy) from None
    header.pop("__metadata__", None)
    return header, 8 + size


def read_safetensors_metadata(path: Path) -> Any:
    """Returns the texts in the header, which the library reads, and checks, without making Python objects of it all."""
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            return opened.metadata()
    except safetensors.SafetensorError as error:
        raise UnreadableError(f"safetensors refuses it ({' '.join(str(error).split())[:200]})") from None


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a file; the same tensors give the same bytes.

    Raises:
        UnreadableError: A tensor is of a type that the format has no name for.
    """
    known = set(_TYPES.values())
    for name, array in arrays.items():
        if array.dtype.newbyteorder("=") not in known:
            raise UnreadableError(f"{name!r} is of type {array.dtype}, which safetensors has no name for", "convert it")
    contiguous = {n: np.array(a, dtype=a.dtype.newbyteorder("="), order="C", copy=None) for n, a in arrays.items()}
    # "pt": what torch's own users of the format ask for before they load a file.
    return _in_order(safetensors.numpy.save(contiguous, metadata={**metadata, "format": "pt"}))


def _in_order(file: bytes) -> bytes:
    """Returns a safetensors file with its metadata in order of name: the library's order changes from call to call.

    The same weights then give the same bytes, whose checksums can be compared.
    """
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors begin where the header ends, aligned to eight bytes by spaces at its end.
    ordered += b" " * (-len(ordered) % 8)
    return len(ordered).to_bytes(8, "little") + ordered + file[8 + size :]
