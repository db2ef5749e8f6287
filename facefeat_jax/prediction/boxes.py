"""Reading a file of boxes: who is where in which picture."""

from __future__ import annotations

import hashlib
import operator
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from facefeat_jax.prediction.crops import Box
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import ByName, spelled
from facefeat_jax.system.tables import MAX_BYTES, TableRow, table_rows
from facefeat_jax.system.text import format_size

COLUMNS = ("file", "left", "top", "right", "bottom")

_NAMED = 3  # pictures that a message names at most


@dataclass(eq=False)
class _Listed:
    """A line of the file: its picture's name there, its box, and whether its picture was among those given."""

    file: str
    line: int
    box: Box
    is_used: bool = False


class Boxes:
    """The boxes of a file, by picture; see `read_boxes`.

    Attributes:
      path: the file.
      sha256: of its content.
      are_shares: whether the boxes are shares of the picture's width and height, from 0 to 1, instead of pixels.
    """

    def __init__(self, path: Path, sha256: str, listed: list[_Listed]):
        self.path = path
        self.sha256 = sha256
        self.are_shares = are_shares([row.box for row in listed])
        if not self.are_shares and (small := [row for row in listed if min(row.box.width, row.box.height) < 1]):
            are_mixed = any(are_shares([row.box]) for row in small)
            mixed = "; fractions from 0 to 1 and pixels can't be mixed" if are_mixed else ""
            raise UserError(f"{path}, line {small[0].line}: the box is less than a pixel wide or high{mixed}")
        self._listed: ByName[_Listed] = ByName()
        self._count = len(listed)
        for one in listed:
            self._listed.add(_place(path.parent, one.file), one)

    def of(self, source: str | Path, size: tuple[int, int]) -> list[Box]:
        """Returns the boxes of a picture in pixels, in the order of the lines.

        Args:
          source: its name; the rule by which names are the same is `file_names`'.
          size: its width and height in pixels.
        """
        width, height = size if self.are_shares else (1, 1)
        found = [row.box for row in self._listed.find(os.path.abspath(source))]
        return [box.scaled(width, height) for box in found]

    def watched(self, names: Iterable[str]) -> Iterator[str]:
        """Yields the names of the pictures; those that pass here have been given (see `unused`)."""
        for name in names:
            for row in self._listed.find(os.path.abspath(name)):
                row.is_used = True
            yield name

    def unused(self) -> tuple[str, bool]:
        """Returns what is to be reported of lines for pictures that were not given (or nothing), and whether all are.

        To be called when all names have been `watched`.
        """
        unused = [row for row in self._listed if not row.is_used]
        if not unused:
            return "", False
        first = dict.fromkeys(
            f"{row.file} (line {row.line})" for row in sorted(unused, key=operator.attrgetter("line"))
        )
        names = ", ".join(list(first)[:_NAMED]) + (", ..." if len(first) > _NAMED else "")
        none = len(unused) == self._count
        count = "none of its lines is" if none else f"{len(unused):,} of its {self._count:,} lines are not"
        return f"{self.path}: {count} for a picture that was given: {names}", none


def read_boxes(path: Path) -> Boxes:
    """Reads a CSV file with the columns `file`, `left`, `top`, `right`, `bottom`, one face a line; others are ignored.

    Boxes are in pixels of the picture as it is decoded, which with the policy `upright` is after turning it as EXIF
    says, and lie about a face as a Haar cascade's do: a square from the forehead to the chin. Where no box of a file is
    larger than a pixel or two (all numbers lie from -0.5 to 1.5), they are shares of the picture's width and height.

    Args:
      path: the file (`tables.read_table`). Names of pictures in it are relative to the file's folder where there is
        such a file, else they are those of the command.

    Raises:
      UserError: the file can't be read, has no such columns, or a line whose box is none.
    """
    try:
        with path.open("rb") as file:  # perhaps a pipe: it can be read once
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); --boxes takes a CSV file with {','.join(COLUMNS)}") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {format_size(MAX_BYTES)}; give the boxes in several files")
    rows = table_rows(data, str(path), COLUMNS)
    return Boxes(path, hashlib.sha256(data).hexdigest(), [_listed(path, row) for row in rows])


def _listed(path: Path, row: TableRow) -> _Listed:
    where = f"{path}, line {row.line}"
    if row.problem:
        raise UserError(f"{where}: {row.problem}; put a name with a comma in quotes")
    texts = [row.values[name] for name in COLUMNS[1:]]
    try:
        box = Box(*map(float, texts))
    except ValueError:
        raise UserError(f"{where}: {','.join(texts)} is not a box; write numbers with a decimal point") from None
    if not row.values["file"]:
        raise UserError(f"{where}: no file name")
    if not box.has_area:
        raise UserError(f"{where}: {','.join(texts)} is not a box; left must be below right, and top below bottom")
    return _Listed(row.values["file"], row.line, box)


def are_shares(boxes: Iterable[Box]) -> bool:
    """Returns whether boxes that are written together are shares of a picture's width and height (see `read_boxes`)."""
    return all(-0.5 <= value <= 1.5 for box in boxes for value in (box.left, box.top, box.right, box.bottom))


def _place(folder: Path, name: str) -> str:
    """Returns the absolute path that a name in a file in `folder` stands for."""
    alike = spelled(name.replace("\\", "/"))
    for beside in (name, *(unicodedata.normalize(form, alike) for form in ("NFC", "NFD"))):
        if os.path.lexists(folder / beside):
            return os.path.abspath(folder / beside)
    return os.path.abspath(name)
