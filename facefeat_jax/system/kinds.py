"""What a field or an argument takes: names of choices, and whether a value from a file or a caller is of its kind."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from facefeat_jax.system.errors import UserError

DType = Literal["float32", "bfloat16", "float64"]

# Of float32 products; `default` is what JAX takes on the device.
MatmulPrecision = Literal["default", "tensorfloat32", "highest"]

# What of a person a head looks at: see `facefeat_jax.prediction.crops`.
FrameName = Literal["face", "head", "upper_body", "whole"]

# Side in pixels: one batch of larger pictures would fill the memory of most machines.
MAX_IMAGE_SIZE = 4096

# How pictures are resized; the weights decide.
Interpolation = Literal["bilinear", "bicubic"]

# How files become RGB: see `facefeat_jax.data.images.decode`.
DecodePolicy = Literal["as_notebook", "upright"]


def fault(value: Any, kind: Any) -> str | None:
    """Returns what should be there where a value is not of a field's kind, else None.

    Args:
      value: any.
      kind: `bool`, `int`, `float` (a whole number will do), `str` (or a path), `Path` (or a text), `dict`,
        `tuple[str, ...]` (or a list) or a union of these and `None`.
    """
    options = _options(kind)
    return None if any(_fits(value, option) for option in options) else _WANTED[options[0]]


def plain(value: Any, kind: Any) -> Any:
    """Returns a value that fits as Python's own: an `int` for NumPy's, a `Path` for a text, a `tuple` for a list.

    Args:
      value: without a `fault`.
      kind: as in `fault`.
    """
    fitting = next(option for option in _options(kind) if _fits(value, option))
    return value if fitting is NoneType else (get_origin(fitting) or fitting)(value)


def names(value: Iterable[str], argument: str) -> tuple[str, ...]:
    """Returns the names that a caller gave for an argument.

    Raises:
      UserError: it is one text, which Python takes for its letters, or holds something else.
    """
    if isinstance(value, str | bytes):
        raise UserError(f"{argument} takes a list of names, got the text {value!r}; give [{value!r}]")
    found = tuple(value)
    if not all(isinstance(name, str) for name in found):
        raise UserError(f"{argument} takes a list of names, got {list(found)!r}")
    return found


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fits(value: Any, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind == tuple[str, ...]:
        return isinstance(value, tuple | list) and all(isinstance(name, str) for name in value)
    return isinstance(value, _TYPES[kind])


_TYPES: dict[Any, Any] = {
    int: Integral,
    float: Real,
    str: (str, Path),
    Path: (str, Path),
    dict: dict,
    NoneType: NoneType,
}
_WANTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    dict: "an object",
    tuple[str, ...]: "a list of names",
}
