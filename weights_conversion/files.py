"""Reads and writes files of weights: torch's `.pth` in its three formats, and safetensors, without torch.

A file is recognised by its first bytes, not by its name. Whatever is wrong with it ends in a `WeightsFileError` of one
line. No code of a file is ever run: `_torch_pickle` reads pickles without doing what they ask.
"""

from __future__ import annotations

import contextlib
import difflib
import mmap
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import write_whole
from facefeat_jax.system.progress import say
from weights_conversion import _torch_old_files as old_files
from weights_conversion import _torch_zip as torch_zip
from weights_conversion._candidates import Reading, unwrapped
from weights_conversion._safetensors_files import read_safetensors, read_safetensors_metadata, to_safetensors
from weights_conversion._torch_objects import DAMAGED, UnreadableError

_SUFFIXES = (".pth", ".pt", ".safetensors")
_WANTED = "give a .pth, .pt or .safetensors file"


class WeightsFileError(UserError):
    """A file of weights can't be read or written. One line: which file, what is wrong, what to do."""


def read(
    path: str | os.PathLike[str], *, key: str | None = None, note: Callable[[str], object] = say
) -> dict[str, np.ndarray]:
    """Reads a file of weights: torch's zip, pickle stream or tar, or safetensors, recognised by content.

    A checkpoint that keeps its weights under some key (`state_dict`, `model`, `net`, ...) gives those; of weights as
    trained and an average of them, those as trained. What training frameworks put in front of all names (`module.`,
    `_orig_mod.`, `model.`) is taken off where a network that is known here is behind it. Tensors that share memory in
    torch come back as separate arrays. Values are not judged: see `check_finite`.

    Args:
        path: The file.
        key: Which set of weights, where the file holds several: its key in the checkpoint, or its wrapper of names.
        note: Called with a line for each choice and each wrapper that was taken off; the default prints it to standard
            error.

    Returns:
        Tensor by name, in the file's order (safetensors: by name). Each array owns its memory, is C-contiguous, in the
        machine's byte order, of the shape and type in the file: floats of 64, 32, 16 bits, bfloat16 and float8 (as
        `ml_dtypes`), complex, bool, signed and unsigned integers.

    Raises:
        WeightsFileError: There is no such file; it is empty, cut short, damaged or no file of weights; it holds a whole
            module or something that would run code (nothing is run); it holds other things than tensors, or tensors
            that are sparse or quantised; there are several sets of weights, and it is not clear which is meant; they
            take more than 4 GiB.
    """
    path = Path(path)
    reading = Reading(path, key)
    with _in_one_line(f"read weights from {_shown(path)}"), _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise UnreadableError("the file is empty", "download or copy it again")
        # Mapped, not read: what is no file of weights (a data set's archive, a video) costs only its first page.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if data[:4] == b"PK\x03\x04" or data[:4] == b"PK\x05\x06":
            tensors = torch_zip.read_zip(file, data, reading)
        else:
            tensors = _reader(data)(data, reading)
        named = unwrapped(tensors, reading)
        if reading.key is not None:
            raise UnreadableError(f"it holds one set of weights, and none under {key!r}", "leave out --key")
    for line in reading.notes:
        note(f"{_shown(path)}: {line}")
    return {short: tensors[name] for name, short in named.items()}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the texts that `write` was given beside the tensors; other programs' files carry few or none.

    Args:
        path: The file.

    Returns:
        Text by name; empty for torch's older formats, and where what is there is no text by name.

    Raises:
        WeightsFileError: The file can't be read; see `read`.
    """
    path = Path(path)
    raw: Any = {}
    with _in_one_line(f"read weights from {_shown(path)}"), _open(path) as file:
        head = file.read(9)
        try:
            if head[:4] == b"PK\x03\x04":
                raw = torch_zip.read_zip_metadata(file)
            elif head[8:9] == b"{":
                raw = read_safetensors_metadata(path)
        except (ValueError, RecursionError):
            raise UnreadableError("its header is not JSON", DAMAGED) from None
    is_text = isinstance(raw, dict) and all(isinstance(part, str) for item in raw.items() for part in item)
    return raw if is_text else {}


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors to a file, as torch (`.pth`, `.pt`) or safetensors reads them; all of it or nothing.

    The file appears under its name only when it is complete and on disk; an older file of that name stays until then.
    The same tensors give the same bytes.

    Args:
        path: Where to; the suffix says the format. `.pth` and `.pt` are torch's zip format, which
            `torch.load(path, weights_only=True)` gives back as an OrderedDict of CPU tensors.
        tensors: Array by name. NumPy arrays or what `np.asarray` takes (JAX arrays), of any shape; their types are kept
            (an int64 counter stays int64).
        metadata: Texts by name to travel in the file, where torch does not look; `read_metadata` gives them back.

    Raises:
        WeightsFileError: The suffix is another, a name is no text, a type is missing from the format, or the folder
            can't be written to.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    where = f"write weights to {_shown(path)}"
    if suffix not in _SUFFIXES:
        raise WeightsFileError(f"can't {where}: the suffix says the format, so give one of {', '.join(_SUFFIXES)}")
    if wrong := [name for name in tensors if not isinstance(name, str)]:
        raise WeightsFileError(f"can't {where}: the name {wrong[0]!r} is not text")
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    with _in_one_line(where):
        if not path.parent.is_dir():
            raise UnreadableError("the folder does not exist", "make it first")
        if suffix == ".safetensors":
            write_whole(path, lambda file: file.write(to_safetensors(arrays, metadata or {})))
        else:
            write_whole(path, lambda file: torch_zip.write_zip(file, arrays, metadata or {}))


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Reports in one line why something can't be done."""
    try:
        yield
    except UnreadableError as error:
        raise WeightsFileError(f"can't {what}: {error}") from None
    except OSError as error:
        raise WeightsFileError(f"can't {what}: {error.strerror or error}") from None


_COUNTER = "num_batches_tracked"  # half() makes infinity of a count beyond 65,504; no answer depends on it


def check_finite(tensors: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Refuses weights that hold NaN or infinity: what a training run that diverged leaves behind.

    Args:
        tensors: Array by name, as `read` gives them.
        path: Where they came from, for the message.

    Raises:
        WeightsFileError: Some hold NaN or infinity; it names them.
    """
    bad = [
        name
        for name, array in tensors.items()
        if _is_inexact(array.dtype) and not np.isfinite(array).all() and not name.endswith(_COUNTER)
    ]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise WeightsFileError(
            f"the weights in {_shown(Path(path))} hold NaN or infinity in {', '.join(map(repr, bad[:5]))}{more}; "
            "the run that wrote them diverged: take an earlier checkpoint"
        )


def _is_inexact(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.inexact) or dtype.isbuiltin == 2  # 2: ml_dtypes' floats


def _shown(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)  # an error is one line, whatever a file is called


def _open(path: Path) -> IO[bytes]:
    """Opens a regular file; anything else is said before it can block (a pipe) or puzzle (a folder)."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        names = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
        if not path.parent.is_dir():
            raise UnreadableError("there is no such folder", "check the path") from None
        hint = f"did you mean {near[0]!r}?" if near else "check the path"
        raise UnreadableError("there is no such file", hint) from None
    if stat.S_ISDIR(mode):
        names = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
        hint = f"give the file in it, such as {names[0]!r}" if names else _WANTED
        raise UnreadableError("it is a folder", hint)
    if not stat.S_ISREG(mode):
        raise UnreadableError("it is not a regular file", _WANTED)
    return path.open("rb")


# ------------------------------------------------------------------------------------------------------ what a file is

# What people hand over by mistake: a download that was a page, a picture, another framework's weights.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the real file with `git lfs pull`"),
    (rb"\s*<(!doctype html|html|head)", "an HTML page", "the download gave a page, not the file: download it again"),
    (rb"\s*<", "an XML or HTML document", "the download gave a document, not the file: download it again"),
    (rb"\xff\xd8\xff", "a JPEG picture", _WANTED),
    (rb"\x89PNG\r\n", "a PNG picture", _WANTED),
    (rb"GIF8", "a GIF picture", _WANTED),
    (rb"RIFF....WEBP", "a WebP picture", _WANTED),
    (rb"BM....\0\0\0\0", "a BMP picture", _WANTED),
    (rb"....ftyp", "a video or an AVIF picture", _WANTED),
    (rb"%PDF", "a PDF document", _WANTED),
    (rb"\x89HDF\r\n", "an HDF5 file (Keras weights?)", "only torch's and safetensors' files are read"),
    (rb"\x93NUMPY", "a NumPy .npy array", _WANTED),
    (rb"\x1f\x8b", "a gzip archive", "unpack it first"),
    (rb"(\xfd7zXZ|BZh|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!)", "a compressed archive", "unpack it first"),
    (rb"GGUF", "a GGUF file", "only torch's and safetensors' files are read"),
    (rb"\s*[\[{]", "JSON text", _WANTED),
)
_OLD_PICKLE = re.compile(rb"[(\]}dl]{0,8}[ci][\w.]+\n[\w.]+\n")  # a text pickle that names a global: not even looked up


def _reader(data: memoryview) -> Callable[[memoryview, Reading], dict[str, np.ndarray]]:
    head = bytes(data[:1024])
    if head[257:262] == b"ustar":
        return old_files.read_tar
    if head[8:9] == b"{":  # a length, then a JSON object
        return read_safetensors
    # \x80 opens every binary pickle; \x80\x02 to \x80\x05 are those of the protocols that exist.
    if (head[:1] == b"\x80" and head[1:2] and 2 <= head[1] <= 5) or _OLD_PICKLE.match(head):
        return old_files.read_stream
    for pattern, kind, remedy in _OTHERS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            raise UnreadableError(f"it is {kind}, not a file of weights", remedy)
    if not head.strip(b"\0"):
        raise UnreadableError("it begins with nothing but zeros", "the download or copy failed: do it again")
    try:
        is_text = head.decode("utf-8").isprintable() or b"\n" in head
    except UnicodeDecodeError:
        is_text = False
    kind = "text" if is_text else "in no format known here"
    raise UnreadableError(f"it is not a file of weights (it is {kind})", _WANTED)
