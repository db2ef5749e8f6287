"""A pickle reader for what torch writes, and for nothing else.

A pickle is a program: `pickle.load` calls whatever the file names. This reader is its own small machine instead. It
knows the opcodes that build data, a closed table of names (`_torch_objects`), and the handful of calls that torch's
files make with them. Nothing is imported, looked up or called because a file says so. Memory is bounded by the pickle's
length (Python's own unpickler reserves memory for whatever memo index a file asks for), time by `Steps`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from weights_conversion._torch_objects import (
    CUT_SHORT,
    ElementType,
    Name,
    Opaque,
    Parameter,
    Tensor,
    UnreadableError,
    look_up,
    make_shape,
    make_tensor,
    refuse,
)

_MARK = object()
_CONSTANTS: dict[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}
_EMPTY = {ord(")"): tuple, ord("]"): list, ord("}"): dict}
# By opcode, the struct format of the value, of the memo's index, or of a length with the kind of what has it.
_NUMBERS = {ord("J"): "<i", ord("K"): "<B", ord("M"): "<H", ord("G"): ">d"}
_PUTS = {ord("q"): "<B", ord("r"): "<I"}
_GETS = {ord("h"): "<B", ord("j"): "<I"}
_SIZED = {
    **{ord("X"): ("<I", "text"), 0x8C: ("<B", "text"), 0x8D: ("<Q", "text")},
    **{ord("T"): ("<I", "old text"), ord("U"): ("<B", "old text")},  # Python 2's str
    **{ord("B"): ("<I", "bytes"), ord("C"): ("<B", "bytes"), 0x8E: ("<Q", "bytes")},
    **{0x8A: ("<B", "integer"), 0x8B: ("<I", "integer")},
}
_IGNORED = {0x80: 1, 0x95: 8}  # PROTO, FRAME (only a hint how much to read ahead): bytes that follow
# torch's files take some forty steps a tensor. A step may take a hundred bytes of memory for one byte of the file.
_MOST_STEPS = 2_000_000
MOST_PICKLE = 1 << 28  # bytes; elements of tensors are no part of it
# Beyond it, whole numbers of one hash are easily found, and a dict of many of those takes time without end.
_MOST_KEY = 2**60


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
        steps: What is left for this file; the default is all that a file may take.

    Returns:
        The object, made of dict, list, tuple, str, bytes, numbers, None and the classes of `_torch_objects`; and the
        position after it. `OrderedDict` becomes dict; its attributes (torch's `_metadata`) are left out.

    Raises:
        UnreadableError: The pickle is cut short or damaged, or asks for something that is not data.
    """
    return _Machine(memoryview(data), start, persistent, steps or Steps()).run()


class _Machine:
    def __init__(self, data: memoryview, start: int, persistent: Callable[[Any], object] | None, steps: Steps) -> None:
        self.data, self.at, self.persistent, self.steps = data, start, persistent, steps
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0  # entries copied by calls: nothing else here could outgrow the file

    def run(self) -> tuple[Any, int]:
        try:
            while self.steps.left > 0:
                self.steps.left -= 1
                opcode = self.take(1)[0]
                if opcode == ord("."):
                    return self.stack.pop(), self.at
                self.step(opcode)
            raise UnreadableError("its pickle is longer than that of any model")
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
        elif opcode in _IGNORED:
            self.take(_IGNORED[opcode])
        elif opcode == ord("("):
            stack.append(_MARK)
        elif opcode == ord("0"):  # POP
            stack.pop()
        elif opcode == ord("1"):  # POP_MARK
            self.above_mark()
        elif opcode == ord("2"):  # DUP
            stack.append(stack[-1])
        elif opcode in _PUTS:
            self.memo[self.number(_PUTS[opcode])] = stack[-1]
        elif opcode == 0x94:  # MEMOIZE
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in _GETS:
            stack.append(self.memo[self.number(_GETS[opcode])])
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode == 0x8F:  # EMPTY_SET
            stack.append(Opaque("builtins.set"))
        elif opcode in (ord("e"), 0x90):  # APPENDS, ADDITEMS
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
            self.extend([stack.pop()])
        elif opcode == ord("s"):
            value, key = stack.pop(), stack.pop()
            self.set_items([key, value])
        elif opcode == ord("u"):
            self.set_items(self.above_mark())
        elif opcode == ord("c"):
            stack.append(look_up(self.line(), self.line()))
        elif opcode == 0x93:  # STACK_GLOBAL
            name, module = stack.pop(), stack.pop()
            if not (isinstance(name, str) and isinstance(module, str)):
                raise TypeError
            stack.append(look_up(module, name))
        elif opcode in (ord("i"), 0x82, 0x83, 0x84):  # INST, EXT1, EXT2, EXT4: other ways to name a class
            name = f"{self.line()}.{self.line()}" if opcode == ord("i") else "an entry of the extension registry"
            refuse(name)
        elif opcode == ord("R"):
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(arguments, tuple):
                raise TypeError
            if function is Name.ORDERED_DICT and arguments:
                self.copied += len(arguments[0])
                if self.copied > len(self.data):
                    raise ValueError
            stack.append(_call(function, arguments))
        elif opcode == 0x81:  # NEWOBJ
            arguments, kind = stack.pop(), stack.pop()
            stack.append(_call(kind, arguments) if kind is not Name.PARAMETER else Parameter())
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
            raise UnreadableError(f"its pickle uses opcode 0x{opcode:02x}, which torch does not write")

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


def _call(function: object, arguments: tuple[Any, ...]) -> object:
    """The calls torch's files make, done on inert objects. Wrong arguments raise TypeError or ValueError."""
    if isinstance(function, Opaque):
        return Opaque(function.name)
    if function is Name.DEFAULT_DICT:  # of the factory; its items follow
        return {}
    if function is Name.ORDERED_DICT:
        result: dict[Any, Any] = {}
        for key, value in arguments[0] if arguments else ():
            _set(result, key, value)
        return result
    if function in (Name.REBUILD_TENSOR, Name.REBUILD_TENSOR_V2, Name.REBUILD_TENSOR_V3):
        storage, offset, shape, stride, *others = arguments
        element = others.pop(2) if function is Name.REBUILD_TENSOR_V3 else None
        if function is Name.REBUILD_TENSOR_V3 and not isinstance(element, ElementType):
            raise TypeError
        if function is not Name.REBUILD_TENSOR and any(others[2:3]):
            raise UnreadableError(
                "it holds a conjugated or negated view of a tensor", "save it after .resolve_conj().resolve_neg()"
            )
        return make_tensor(storage, element and element.dtype, offset, shape, stride)
    if function in (Name.REBUILD_PARAMETER, Name.REBUILD_PARAMETER_WITH_STATE):
        if not isinstance(arguments[0], Tensor):
            raise TypeError
        return arguments[0]
    if function is Name.SIZE:
        return make_shape(*arguments)
    if function is Name.DEVICE:
        return Name.DEVICE  # where tensors lay when saved is no matter here
    raise TypeError


def _build(target: object, state: object) -> None:
    if isinstance(target, Parameter):
        data = state[0] if isinstance(state, tuple) and state else None
        if not isinstance(data, Tensor):
            raise TypeError
        target.data = data
    elif not isinstance(target, dict | Opaque):
        raise TypeError
    # Attributes of an OrderedDict, torch's `_metadata` (versions of layers), say nothing about the weights.
