"""Reads the label tables that data sets ship, in the states that spreadsheets and downloads leave them in."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from facefeat_jax.errors import UserError

_AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69")  # FairFace's; and "more than 70"
_SERIALS = range(36_526, 73_050)  # what spreadsheets count the days of 2000 to 2099 as
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
      UserError: it is not a table in UTF-8, a required column is missing or there twice, or it has no rows.
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
        counts = Counter(header)
        if twice := [column for column in required if counts[column] > 1]:
            raise UserError(f"{name}: {counts[twice[0]]} columns are called {twice[0]!r}; leave one of them")
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

    So were `3/9/2024`, `2024-03-09`, and 45360, the number of that day.

    Returns:
      The range, or the text as it is where it is none of these.
    """
    text = "-".join(part.strip() for part in re.split("[-\u2010-\u2015\u2212]", age))  # hyphens and dashes
    if text in _AGES:
        return text
    if re.fullmatch(r"\d{5}", text) and int(text) in _SERIALS:
        text = (datetime.date(1899, 12, 30) + datetime.timedelta(int(text))).isoformat()
    if match := re.fullmatch(r"\d{4}-(\d{1,2})-(\d{1,2})(?:[ T]00:00(?::00)?)?", text):
        mended = _range(*match.groups())
    elif match := re.fullmatch(r"(\d{1,2})([/.])(\d{1,2})(?:\2(?:\d{4}|\d{2})?)?", text):
        mended = _range(match[1], match[3])
    else:
        parts = text.lower().split("-")
        numbers = [str(_MONTHS.index(part[:3]) + 1) if part[:3] in _MONTHS else part for part in parts]
        is_date = len(parts) == 2 and sum(number != part for number, part in zip(numbers, parts, strict=True)) == 1
        mended = _range(*numbers) if is_date else ""
    return mended or age


def _range(one: str, other: str) -> str:
    """Returns a range of two numbers, of at most two digits each, the lower first; nothing for other texts."""
    if not all(re.fullmatch(r"\d{1,2}", text, re.ASCII) for text in (one, other)):
        return ""
    low, high = sorted((int(one), int(other)))
    return f"{low}-{high}"
