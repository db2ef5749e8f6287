"""Tables and lists as people have them, read in one way; and tables for spreadsheets, written in one way.

A cell that a spreadsheet would take for a formula (it begins with `=`, `+`, `-` or `@`, and is no number) is written
with an apostrophe before it, which spreadsheets show or drop; so is one that begins with apostrophes and then that, so
that reading takes off one apostrophe and has the text back.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.text import count

MAX_BYTES = 256 * 2**20
"""Larger files are no tables that this package reads."""

MAX_NAME_BYTES = 65_536
"""A longer line is no file's name."""

_SEPARATORS = (",", ";", "\t")
# Also the full-width forms, which spreadsheets set to Japanese take for the others; blanks before are skipped by some.
_FORMULA = re.compile("'*\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan")


@dataclass(frozen=True)
class TableRow:
    """A row of a table."""

    number: int  # counted from 0, the header not included; blank lines don't count
    values: dict[str, str]  # by column name, stripped; empty where `problem` is set
    problem: str = ""  # why the row can't be read, or empty
    line: int = 0  # the line of the file that it begins in, from 1


def read_table(data: bytes, name: str, required: Sequence[str]) -> list[TableRow]:
    """Reads a CSV file: UTF-8 with or without byte order mark, any line ends, quoted fields, more columns than needed.

    The separator is a comma, or the semicolon or tab with which the first line has the required columns; a line `sep=;`
    before it, as spreadsheets write it, is heeded.

    Args:
      data: the file's bytes.
      name: for messages.
      required: columns that have to be there. Names are compared without regard to case and blanks around them.

    Returns:
      Its rows in file order. A row with too few or too many fields has `problem` set.

    Raises:
      UserError: it is not a table in UTF-8, a required column is missing or there twice, or it has no rows.
    """
    return list(table_rows(data, name, required))


def table_rows(data: bytes, name: str, required: Sequence[str]) -> Iterator[TableRow]:
    """Yields the rows of `read_table`, one at a time; arguments and errors are the same."""
    text = _text(data, name)
    separator, skipped = _separator(text, required)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    number, header, begins = 0, None, 1
    try:
        for fields in reader:
            line, begins = begins, reader.line_num + 1
            if line <= skipped or not any(field.strip() for field in fields):
                continue
            if header is None:
                header = _header(fields, name, required)
                continue
            if len(fields) == len(header):
                values = dict(zip(header, (from_csv(field.strip()) for field in fields), strict=True))
                yield TableRow(number, values, line=line)
            else:
                problem = f"{count(len(fields), 'field')} instead of {len(header)}"
                yield TableRow(number, {}, problem, line)
            number += 1
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: not readable as CSV ({error})") from error
    if header is None:
        _header([], name, required)
    if not number:
        raise UserError(f"{name}: no rows below the header")


def stdin_names() -> Iterator[str]:
    """Yields the file names that come from standard input; see `read_names`.

    Raises:
      UserError: it is closed.
    """
    if sys.stdin is None:
        raise UserError("standard input is closed; name the pictures, or pipe in a list of them, one per line")
    return read_names(sys.stdin.buffer, "standard input")


def read_names(stream: IO[bytes], name: str) -> Iterator[str]:
    """Yields the file names of a list, one a line: blank lines, CR before LF and a byte order mark are no part of them.

    Args:
      stream: open for reading bytes. Names are bytes, decoded as the file system's are (`os.fsdecode`); blanks within
        a line belong to its name.
      name: name of the list, for messages.

    Raises:
      UserError: it can't be read, is in UTF-16, or a line holds a NUL byte or more than `MAX_NAME_BYTES`.
    """
    for number, line in enumerate(_lines(stream, name), 1):
        if number == 1:
            _refuse_utf16(line, name)
            line = line.removeprefix(codecs.BOM_UTF8)
        line = line.rstrip(b"\r\n")
        if b"\0" in line:
            advice = "names are taken one a line; of NUL-separated ones make lines: tr '\\0' '\\n'"
            raise UserError(f"{name}, line {number}: a NUL byte; {advice}")
        if len(line) > MAX_NAME_BYTES:
            raise UserError(
                f"{name}, line {number}: longer than {MAX_NAME_BYTES:,} bytes; give file names, one per line"
            )
        if line.strip():
            yield os.fsdecode(line)


def _lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        while line := stream.readline(MAX_NAME_BYTES + 2):
            yield line
    except OSError as error:
        raise UserError(f"{name} can't be read ({error.strerror or error}); give file names, one per line") from error


def to_csv(cell: object) -> str:
    """Returns a cell's text, such that no spreadsheet takes it for a formula; numbers stay as they are."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_csv(text: str) -> str:
    """Returns the text of which `to_csv` made a cell."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_row(cells: Iterable[object], line_end: str = "\n") -> str:
    """Returns a row of a table, its cells as `to_csv` gives them, with the line's end."""
    return _csv_rows([cells])[0].removesuffix("\r\n") + line_end


def csv_table(header: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """Returns a table as text, a row a line."""
    return "".join([row.removesuffix("\r\n") + "\n" for row in _csv_rows(itertools.chain([header], rows))])


class _Written(list[str]):
    """A file of which each text that was written is kept."""

    write = list.append


def _csv_rows(rows: Iterable[Iterable[object]]) -> list[str]:
    written = _Written()
    # Python before 3.13 quotes line breaks only where they end lines, too.
    csv.writer(written, lineterminator="\r\n").writerows([to_csv(cell) for cell in cells] for cells in rows)
    return written


def _text(data: bytes, name: str) -> str:
    _refuse_utf16(data, name)
    if (at := data.find(b"\0")) >= 0:
        raise UserError(f"{name}, line {_line(data, at)}: a NUL byte (byte {at}); this is not a table in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"line {_line(data, error.start)}, byte {error.start}"
        raise UserError(f"{name}: not UTF-8 ({where}); save it as CSV in UTF-8") from error


def _refuse_utf16(data: bytes, name: str) -> None:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{name}: in UTF-16, not UTF-8; save it in UTF-8")


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def _separator(text: str, required: Sequence[str]) -> tuple[str, int]:
    """Returns the separator of a table, and how many lines before the header are none of its."""
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if found := re.fullmatch(r"\"?sep=([,;\t|])\"?\s*", line, re.IGNORECASE):
            return found[1], number
        if line.strip():
            for separator in _SEPARATORS:
                with contextlib.suppress(csv.Error):
                    if set(required) <= set(_columns(next(csv.reader([line], delimiter=separator), []))):
                        return separator, 0
            break
    return _SEPARATORS[0], 0


def _columns(fields: Sequence[str]) -> list[str]:
    return [from_csv(column.strip()).lower() for column in fields]


def _header(fields: Sequence[str], name: str, required: Sequence[str]) -> list[str]:
    header = _columns(fields)
    if missing := [column for column in required if column not in header]:
        found = ", ".join(header)[:200] or "nothing"
        raise UserError(f"{name}: no column {', '.join(map(repr, missing))}; the first line has: {found}")
    counts = Counter(header)
    if twice := [column for column in required if counts[column] > 1]:
        raise UserError(f"{name}: {counts[twice[0]]} columns are called {twice[0]!r}; keep one of them")
    return header
