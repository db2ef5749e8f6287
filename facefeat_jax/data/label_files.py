"""Reads the label tables that data sets ship, in the states that spreadsheets and downloads leave them in."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from facefeat_jax.errors import UserError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True)
class LabelRow:
    """A row of a label table.

    Attributes:
      number: counted from 0, the header not included; blank lines don't count.
      values: by column name, stripped; empty where `problem` is set.
      problem: why the row can't be read, or empty.
    """

    number: int
    values: dict[str, str]
    problem: str = ""


def read_table(data: bytes, name: str, required: Sequence[str]) -> list[LabelRow]:
    """Reads a CSV file: UTF-8 with or without byte order mark, any line ends, quoted commas, more columns than needed.

    Args:
      data: the file's bytes.
      name: for messages.
      required: columns that have to be there. Names are compared without regard to case.

    Returns:
      Its rows in file order. A row with too few or too many fields has `problem` set.

    Raises:
      UserError: it is not a table in UTF-8, a required column is missing, or it has no rows.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 (byte {error.start}); save it as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if missing := [column for column in required if column not in header]:
            found = ", ".join(header)[:200] or "nothing"
            raise UserError(f"{name}: no column {', '.join(map(repr, missing))}; the first line has: {found}")
        lines = [fields for fields in reader if any(field.strip() for field in fields)]
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: not readable as CSV ({error})") from error
    rows = []
    for number, fields in enumerate(lines):
        if len(fields) == len(header):
            values = dict(zip(header, (field.strip() for field in fields), strict=True))
            rows.append(LabelRow(number, values))
        else:
            rows.append(LabelRow(number, {}, f"{len(fields)} fields instead of {len(header)}"))
    if not rows:
        raise UserError(f"{name}: no rows below the header")
    return rows


def mended_age(age: str) -> str:
    """Undoes what spreadsheets do to FairFace's age ranges: `9-Mar` (or `Mar-09`, `03-Sep`) was `3-9`.

    Returns:
      The range, or the text as it is where it is no such date.
    """
    parts = age.lower().split("-")
    if len(parts) != 2:
        return age
    numbers = [_MONTHS.index(part[:3]) + 1 if part[:3] in _MONTHS else part for part in parts]
    if sum(isinstance(number, int) for number in numbers) != 1 or not all(
        isinstance(number, int) or re.fullmatch(r"\d{1,2}", number) for number in numbers
    ):
        return age
    low, high = sorted(int(number) for number in numbers)
    return f"{low}-{high}"
