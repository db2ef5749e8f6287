"""A pickle reader for what torch writes, and for nothing else.

A pickle is a program: `pickle.load` calls whatever the file names. This reader is its own small machine instead. It
knows the opcodes that build data, a closed table of names (`_GLOBALS`) that stand for inert objects of this module, and
the handful of calls torch's files make with them. Nothing is imported, looked up or called because a file says so. What
lies beside the weights of a checkpoint (options, paths, dates, a class of somebody's own) becomes an `Opaque`, which
knows its name and nothing else; a name that only an attack would ask for ends the reading. Memory is bounded by the
pickle's length (Python's own unpickler reserves memory for whatever memo index a file asks for), time by `Steps`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

DAMAGED = "it is damaged; get it again from where it came"
CUT_SHORT = "the file is incomplete (cut short); download or copy it again"


class UnreadableError(Exception):
    """Why a file can't be read, and what to do. `files.read` adds the path and makes it a `WeightsFileError`."""

    def __init__(self, reason: str, remedy: str = DAMAGED) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Storage:
    """A run of elements that the file keeps somewhere: what a tensor is a view of.

    Attributes:
        key: The file's name for it.
        dtype: Type of its elements; None where only the tensor says it (torch's untyped storages).
        count: Number of elements, or of bytes where `dtype` is None.
        first: Element at which it starts within the run of that key (storages that are views of others).
    """

    key: str
    dtype: np.dtype | None
    count: int
    first: int = 0


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


@dataclass(frozen=True)
class Name:
    """A name of the closed table that is neither a type of storage, of tensor nor of element."""

    text: str


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


_ORDERED_DICT = Name("collections.OrderedDict")
_DEFAULT_DICT = Name("collections.defaultdict")
_SIZE = Name("torch.Size")
_DEVICE = Name("torch.device")
_PARAMETER = Name("torch.nn.parameter.Parameter")
_REBUILD_TENSOR = Name("torch._utils._rebuild_tensor")
_REBUILD_TENSOR_V2 = Name("torch._utils._rebuild_tensor_v2")
_REBUILD_TENSOR_V3 = Name("torch._utils._rebuild_tensor_v3")
_REBUILD_PARAMETER = Name("torch._utils._rebuild_parameter")
_REBUILD_PARAMETER_WITH_STATE = Name("torch._utils._rebuild_parameter_with_state")

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
    **{f"float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"int{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "bool": np.bool_,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}


def _table() -> dict[str, object]:
    names = (
        _ORDERED_DICT,
        _DEFAULT_DICT,
        _SIZE,
        _DEVICE,
        _PARAMETER,
        _REBUILD_TENSOR,
        _REBUILD_TENSOR_V2,
        _REBUILD_TENSOR_V3,
    )
    table: dict[str, object] = {n.text: n for n in (*names, _REBUILD_PARAMETER, _REBUILD_PARAMETER_WITH_STATE)}
    for name, element in _TYPED.items():
        for module in ("torch", "torch.cuda"):
            table[f"{module}.{name}Storage"] = StorageType(np.dtype(element))
            table[f"{module}.{name}Tensor"] = TensorType(np.dtype(element))
    table["torch.storage.UntypedStorage"] = table["torch.UntypedStorage"] = StorageType(None)
    for name, element in _ELEMENTS.items():
        table[f"torch.{name}"] = ElementType(np.dtype(element))
    return table


_GLOBALS = _table()
# The storage types that torch.save names for a dtype; `files.write` uses them too.
STORAGE_NAMES: dict[np.dtype, str] = {np.dtype(element): f"{name}Storage" for name, element in _TYPED.items()}

_MARK = object()
_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}
# opcode: (struct format of the value) and (struct format of the length, kind of the value)
_NUMBERS = {ord("J"): "<i", ord("K"): "<B", ord("M"): "<H", ord("G"): ">d"}
_SIZED = {
    ord("X"): ("<I", "text"),
    0x8C: ("<B", "text"),
    0x8D: ("<Q", "text"),
    ord("T"): ("<I", "old text"),  # Python 2's str
    ord("U"): ("<B", "old text"),
    ord("B"): ("<I", "bytes"),
    ord("C"): ("<B", "bytes"),
    0x8E: ("<Q", "bytes"),
    0x8A: ("<B", "integer"),
    0x8B: ("<I", "integer"),
}
# torch's files take some forty steps a tensor. A step may take a hundred bytes of memory for one byte of the file.
_MOST_STEPS = 2_000_000
MOST_PICKLE = 1 << 28  # bytes; elements of tensors are no part of it
# Beyond it, whole numbers of one hash are easily found, and a dict of many of those takes time without end.
_MOST_KEY = 2**60

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


class Steps:
    """How many steps the pickles of one file may still take, and how many of their bytes may be copied."""

    def __init__(self) -> None:
        self.left, self.bytes = _MOST_STEPS, MOST_PICKLE


def load(
    data: bytes | bytearray | memoryview,
    start: int,
    persistent: Callable[[Any], object] | None = None,
    steps: Steps | None = None,
) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
        data: The bytes that hold it; more may follow.
        start: Where it begins.
        persistent: Turns a persistent id (torch's references to storages) into an object. None: there must be none.
        steps: What is left for this file; the default is all that one may take.

    Returns:
        The object, made of dict, list, tuple, str, bytes, numbers, None and the inert classes of this module; and the
        position after it. `OrderedDict` becomes dict; attributes set on one (torch's `_metadata`) are left out.

    Raises:
        UnreadableError: The pickle is cut short or damaged, or asks for something that is not data.
    """
    return _Machine(memoryview(data), start, persistent, steps or Steps()).run()


class _Machine:
    def __init__(self, data: memoryview, start: int, persistent: Callable[[Any], object] | None, steps: Steps) -> None:
        self.data, self.at, self.persistent, self.steps = data, start, persistent, steps
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0  # entries copied by calls: the one thing here that could outgrow the file

    def run(self) -> tuple[Any, int]:
        try:
            while self.steps.left > 0:
                self.steps.left -= 1
                opcode = self.take(1)[0]
                if opcode == ord("."):
                    return self.stack.pop(), self.at
                self.step(opcode)
            raise UnreadableError("its pickle is longer than that of any model", DAMAGED)
        except (IndexError, KeyError, TypeError, ValueError, struct.error):
            # The stack ran empty, a memo was never set, a call had other arguments than torch gives it.
            raise UnreadableError("its pickle makes no sense") from None

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise UnreadableError("its pickle ends too early", CUT_SHORT)
        self.steps.bytes -= count
        if self.steps.bytes < 0:
            raise UnreadableError("its pickle holds more than that of any model")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        piece = bytes(self.data[self.at : self.at + 1000])
        end = piece.find(b"\n")
        if end < 0:
            raise UnreadableError("its pickle holds a name without an end")
        self.at += end + 1
        return piece[:end].decode("utf-8", "replace")

    def above_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def step(self, opcode: int) -> None:
        stack = self.stack
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _NUMBERS:
            stack.append(self.number(_NUMBERS[opcode]))
        elif opcode in _SIZED:
            stack.append(self.sized(*_SIZED[opcode]))
        elif opcode == 0x80:  # PROTO
            self.take(1)
        elif opcode == 0x95:  # FRAME: only a hint how much to read ahead
            self.take(8)
        elif opcode == ord("("):
            stack.append(_MARK)
        elif opcode == ord("0"):  # POP
            stack.pop()
        elif opcode == ord("1"):  # POP_MARK
            self.above_mark()
        elif opcode == ord("2"):  # DUP
            stack.append(stack[-1])
        elif opcode == ord("q"):
            self.memo[self.number("<B")] = stack[-1]
        elif opcode == ord("r"):
            self.memo[self.number("<I")] = stack[-1]
        elif opcode == 0x94:  # MEMOIZE
            self.memo[len(self.memo)] = stack[-1]
        elif opcode == ord("h"):
            stack.append(self.memo[self.number("<B")])
        elif opcode == ord("j"):
            stack.append(self.memo[self.number("<I")])
        elif opcode in b")]}":
            stack.append(() if opcode == ord(")") else [] if opcode == ord("]") else {})
        elif opcode == 0x8F:  # EMPTY_SET
            stack.append(Opaque("builtins.set"))
        elif opcode == 0x90:  # ADDITEMS
            self.extend(self.above_mark())
        elif opcode == 0x91:  # FROZENSET
            self.above_mark()
            stack.append(Opaque("builtins.frozenset"))
        elif opcode == ord("t"):
            stack.append(tuple(self.above_mark()))
        elif opcode in (0x85, 0x86, 0x87):  # TUPLE1, 2, 3
            size = opcode - 0x84
            if len(stack) < size:
                raise IndexError
            stack[-size:] = [tuple(stack[-size:])]
        elif opcode == ord("l"):
            stack.append(self.above_mark())
        elif opcode == ord("d"):
            items = self.above_mark()
            stack.append({})
            self.set_items(items)
        elif opcode == ord("a"):
            item = stack.pop()
            self.extend([item])
        elif opcode == ord("e"):
            self.extend(self.above_mark())
        elif opcode == ord("s"):
            value, key = stack.pop(), stack.pop()
            self.set_items([key, value])
        elif opcode == ord("u"):
            self.set_items(self.above_mark())
        elif opcode == ord("c"):
            module = self.line()
            stack.append(_look_up(module, self.line()))
        elif opcode == 0x93:  # STACK_GLOBAL
            name, module = stack.pop(), stack.pop()
            if not (isinstance(name, str) and isinstance(module, str)):
                raise TypeError
            stack.append(_look_up(module, name))
        elif opcode in (ord("i"), 0x82, 0x83, 0x84):  # INST, EXT1, EXT2, EXT4: other ways to name a class
            name = f"{self.line()}.{self.line()}" if opcode == ord("i") else "an entry of the extension registry"
            _refuse(name)
        elif opcode == ord("R"):
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(arguments, tuple):
                raise TypeError
            if function is _ORDERED_DICT and arguments:
                self.copied += len(arguments[0])
                if self.copied > len(self.data):
                    raise ValueError
            stack.append(_call(function, arguments))
        elif opcode == 0x81:  # NEWOBJ
            arguments, kind = stack.pop(), stack.pop()
            stack.append(_call(kind, arguments) if kind is not _PARAMETER else Parameter())
        elif opcode == 0x92:  # NEWOBJ_EX, with arguments by name, which no kind of tensor has
            _, _, kind = stack.pop(), stack.pop(), stack.pop()
            if not isinstance(kind, Opaque):
                raise TypeError
            stack.append(Opaque(kind.name))
        elif opcode == ord("b"):
            state = stack.pop()
            _build(stack[-1], state)
        elif opcode == ord("Q"):
            if self.persistent is None:
                raise UnreadableError("its pickle refers to storages where none can be")
            stack.append(self.persistent(stack.pop()))
        else:
            raise UnreadableError(f"its pickle uses opcode 0x{opcode:02x}, which torch does not write", DAMAGED)

    def sized(self, form: str, kind: str) -> Any:
        raw = self.take(self.number(form))
        if kind == "bytes":
            return raw
        if kind == "integer":
            if len(raw) > 32:  # torch's largest is the magic number, 10 bytes; huge ones make slow keys
                raise ValueError
            return int.from_bytes(raw, "little", signed=True)
        return raw.decode("utf-8", "surrogatepass") if kind == "text" else raw.decode("latin-1")

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise TypeError

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Opaque):
            raise TypeError
        if isinstance(target, Opaque):
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(target, key, value)


def _set(target: dict[Any, Any], key: Any, value: Any) -> None:
    if not (isinstance(key, str | bytes | None) or (isinstance(key, int) and abs(key) < _MOST_KEY)):
        key = Opaque(type(key).__name__)  # hashing what a file makes up may take time without end
    target[key] = value


def _look_up(module: str, name: str) -> object:
    full = f"{module}.{name}"
    if full in _GLOBALS:
        return _GLOBALS[full]
    root, last = module.partition(".")[0], name.rpartition(".")[2]
    plain = module in ("builtins", "__builtin__") and name in _PLAIN_BUILTINS.split()
    # Of torch, classes: optimizers, schedules, layers. Its functions and its kinds of tensors are another matter.
    of_torch = root == "torch" and (not last[:1].isupper() or last.endswith(("Storage", "Tensor")))
    if of_torch or "__" in name or (root in _ATTACKS.split() and not plain):
        _refuse(full)
    return Opaque(full[:200])


def _refuse(name: str) -> NoReturn:
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


def _call(function: object, arguments: tuple[Any, ...]) -> object:
    """The calls torch's files make, done on inert objects. Wrong arguments raise TypeError or ValueError."""
    if isinstance(function, Opaque):
        return Opaque(function.name)
    if function is _DEFAULT_DICT:  # of the factory; its items follow
        return {}
    if function is _ORDERED_DICT:
        result: dict[Any, Any] = {}
        for key, value in arguments[0] if arguments else ():
            _set(result, key, value)
        return result
    if function in (_REBUILD_TENSOR, _REBUILD_TENSOR_V2):
        storage, offset, shape, stride = arguments[:4]
        if function is _REBUILD_TENSOR_V2 and len(arguments) > 6:
            _refuse_views(arguments[6])
        return make_tensor(storage, None, offset, shape, stride)
    if function is _REBUILD_TENSOR_V3:
        storage, offset, shape, stride, _, _, element = arguments[:7]
        if not isinstance(element, ElementType):
            raise TypeError
        if len(arguments) > 7:
            _refuse_views(arguments[7])
        return make_tensor(storage, element.dtype, offset, shape, stride)
    if function in (_REBUILD_PARAMETER, _REBUILD_PARAMETER_WITH_STATE):
        if not isinstance(arguments[0], Tensor):
            raise TypeError
        return arguments[0]
    if function is _SIZE:
        return make_shape(*arguments)
    if function is _DEVICE:
        return _DEVICE  # where tensors lay when saved is no matter here
    raise TypeError


def _refuse_views(metadata: Any) -> None:
    if metadata:
        raise UnreadableError(
            "it holds a conjugated or negated view of a tensor", "save it after .resolve_conj().resolve_neg()"
        )


def _build(target: object, state: object) -> None:
    if isinstance(target, Parameter):
        data = state[0] if isinstance(state, tuple) and state else None
        if not isinstance(data, Tensor):
            raise TypeError
        target.data = data
    elif not isinstance(target, dict | Opaque):
        raise TypeError
    # Attributes of an OrderedDict, torch's `_metadata` (versions of layers), say nothing about the weights.


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
