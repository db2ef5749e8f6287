"""What a pickle of torch's may hold: inert objects in place of its classes, and the closed table of their names.

A name that only an attack would ask for ends the reading; any other becomes an `Opaque`, which knows its name and
nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

DAMAGED = "it is damaged; get it again from where it came"
CUT_SHORT = "the file is incomplete (cut short); download or copy it again"

LONGEST_KEY = 256
"""Characters of a storage's key; each is copied for every tensor."""


class UnreadableError(Exception):
    """Why a file can't be read, and what to do. `files.read` adds the path and makes it a `WeightsFileError`."""

    def __init__(self, reason: str, remedy: str = DAMAGED) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Storage:
    """A run of elements that the file keeps somewhere: what a tensor is a view of."""

    key: str  # the file's name for it
    dtype: np.dtype | None  # of its elements; None where only the tensor says it (torch's untyped storages)
    count: int  # of elements, or of bytes where `dtype` is None
    first: int = 0  # element at which it starts within the run of that key (storages that are views of others)


@dataclass(frozen=True)
class Tensor:
    """A tensor as the file describes it: `dtype`, `shape` and `stride` (in elements) over a `storage`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Parameter:
    """A `torch.nn.Parameter` of the older files, made empty and filled by BUILD. `data` is None until then."""

    def __init__(self) -> None:
        self.data: Tensor | None = None


class Opaque:
    """A class, a function or an object that is no part of the weights: only the name is kept.

    It holds nothing of what it was made with: a chain of millions would have to be taken apart again.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Name(Enum):
    """The names that stand neither for a type of storage, of tensor nor of element."""

    ORDERED_DICT = "collections.OrderedDict"
    DEFAULT_DICT = "collections.defaultdict"
    SIZE = "torch.Size"
    DEVICE = "torch.device"
    PARAMETER = "torch.nn.parameter.Parameter"
    REBUILD_TENSOR = "torch._utils._rebuild_tensor"
    REBUILD_TENSOR_V2 = "torch._utils._rebuild_tensor_v2"
    REBUILD_TENSOR_V3 = "torch._utils._rebuild_tensor_v3"
    REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
    REBUILD_PARAMETER_WITH_STATE = "torch._utils._rebuild_parameter_with_state"


@dataclass(frozen=True)
class StorageType:
    """`torch.FloatStorage` and its like; None is `UntypedStorage`."""

    dtype: np.dtype | None


@dataclass(frozen=True)
class TensorType:
    """`torch.FloatTensor` and its like, which the tar format names beside each tensor."""

    dtype: np.dtype


@dataclass(frozen=True)
class ElementType:
    """`torch.float32` and its like."""

    dtype: np.dtype


_TYPED: dict[str, Any] = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
    "ComplexDouble": np.complex128,
}
_ELEMENTS: dict[str, Any] = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "bool", "complex64", "complex128")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{
        name: getattr(ml_dtypes, name)
        for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    },
}


def _table() -> dict[str, object]:
    table: dict[str, object] = {name.value: name for name in Name}
    for name, element in _TYPED.items():
        for module in ("torch", "torch.cuda"):
            table[f"{module}.{name}Storage"] = StorageType(np.dtype(element))
            table[f"{module}.{name}Tensor"] = TensorType(np.dtype(element))
    table["torch.storage.UntypedStorage"] = table["torch.UntypedStorage"] = StorageType(None)
    for name, element in _ELEMENTS.items():
        table[f"torch.{name}"] = ElementType(np.dtype(element))
    return table


_GLOBALS = _table()
# The storage types that torch.save names for a dtype; `write_zip` uses them too.
STORAGE_NAMES: dict[np.dtype, str] = {np.dtype(element): f"{name}Storage" for name, element in _TYPED.items()}

# What code that runs is made of. Nothing of the kind is ever run here; a file that asks for it is not worth reading on.
_ATTACKS = (
    "os posix nt posixpath ntpath subprocess sys shutil socket socketserver importlib imp runpy pkgutil pty platform "
    "ctypes _ctypes cffi code codeop pdb bdb timeit trace webbrowser commands popen2 asyncio multiprocessing "
    "pickle _pickle cPickle dill cloudpickle marshal shelve gc inspect operator _operator "
    "urllib urllib2 ftplib smtplib telnetlib pip setuptools venv ensurepip doctest idlelib site atexit "
    "builtins __builtin__"
)
_PLAIN_BUILTINS = (
    "object set frozenset complex bytearray bytes slice range xrange list dict tuple str unicode int long float bool "
    "type Exception ValueError TypeError KeyError RuntimeError"
)


def look_up(module: str, name: str) -> object:
    """Returns what stands for a name; raises `UnreadableError` for what only an attack would ask for."""
    full = f"{module}.{name}"
    if full in _GLOBALS:
        return _GLOBALS[full]
    root, last = module.partition(".")[0], name.rpartition(".")[2]
    plain = module in ("builtins", "__builtin__") and name in _PLAIN_BUILTINS.split()
    # Of torch, classes: optimizers, schedules, layers. Its functions and its kinds of tensors are another matter.
    of_torch = root == "torch" and (not last[:1].isupper() or last.endswith(("Storage", "Tensor")))
    if of_torch or "__" in name or (root in _ATTACKS.split() and not plain):
        refuse(full)
    return Opaque(full[:200])


def refuse(name: str) -> NoReturn:
    """Raises `UnreadableError` for a name that is asked for."""
    shown = repr(name)[:120]
    if name.startswith("torch."):
        raise UnreadableError(
            f"it asks for {shown}, a kind of tensor or object that is not supported (nothing was run)",
            "save plain, dense tensors: the state_dict() of the model",
        )
    raise UnreadableError(
        f"it asks for {shown}, which is code and not weights; it was refused and nothing was run",
        "don't use the file unless you trust its maker",
    )


def make_shape(values: Any) -> tuple[int, ...]:
    """Checks a shape, or a stride: at most 32 whole numbers from 0 up. Raises TypeError or ValueError."""
    if not isinstance(values, (tuple, list)):
        raise TypeError
    if len(values) > 32 or any(type(v) is not int or not 0 <= v < 2**62 for v in values):
        raise ValueError
    return tuple(values)


def make_tensor(storage: Any, dtype: np.dtype | None, offset: Any, shape: Any, stride: Any) -> Tensor:
    """Describes a tensor over `storage`, of `dtype` or (None) of the storage's. Raises TypeError or ValueError."""
    if not isinstance(storage, Storage):
        raise TypeError
    element = dtype or storage.dtype
    if element is None:
        raise TypeError
    shape, stride = make_shape(shape), make_shape(stride)
    (offset,) = make_shape([offset])
    if len(shape) != len(stride):
        raise ValueError
    return Tensor(storage, element, offset, shape, stride)
