"""Mends what spreadsheets do to label tables (`tables.read_table` reads them)."""

from __future__ import annotations

import datetime
import re

_AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69")  # FairFace's; and "more than 70"
_SERIALS = range(36_526, 73_050)  # what spreadsheets count the days of 2000 to 2099 as
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


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
