"""When two file names are the same: the one rule, for label tables, lists of boxes and the names of a command.

The path is normalised as text (`./a//b` is `a/b`, `x/../a` is `a`); nothing is looked up on disk, so two links to one
file stay two names. Names that are spelled alike are the same. Where none is, `\\` counts as `/`, and composed letters
(NFC, what most systems write) as decomposed ones (NFD, what macOS's archives hold). Case and blanks count.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


def spelled(name: str) -> str:
    """Returns a name with its path normalised, as text."""
    path = posixpath.normpath(name) if name else name
    return path[1:] if path.startswith("//") else path


def identity(name: str) -> str:
    """Returns a key that is equal for names of the same file: it treats `\\` as `/`, and NFC like NFD."""
    return unicodedata.normalize("NFC", spelled(name.replace("\\", "/")))


class ByName(Generic[Value]):
    """Values by file name, found by the rule of this module; a name may have several."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[Value]]] = {}

    def add(self, name: str, value: Value) -> None:
        """Adds a value under a name."""
        self._values.setdefault(identity(name), {}).setdefault(spelled(name), []).append(value)

    def find(self, name: str) -> list[Value]:
        """Returns the values of the same name, in the order in which they were added; none where there is no such."""
        alike = self._values.get(identity(name), {})
        exact = alike.get(spelled(name))
        return list(exact) if exact else [value for values in alike.values() for value in values]

    def __iter__(self) -> Iterator[Value]:
        """Yields all values."""
        return (value for alike in self._values.values() for values in alike.values() for value in values)
