"""Tables in Markdown, for the pages that scripts write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def row(*cells: object) -> str:
    """Returns a line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Returns the lines of a table of figures; the first column says what they are of."""
    rule = ["---", *("---:" for _ in header[1:])]
    return [row(*cells) for cells in (header, rule, *rows)]
