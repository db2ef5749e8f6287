"""Markdown: tables, and text from data in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from facefeat_jax.system.text import one_line

# What has a meaning in Markdown, GitHub's included; `_` only where it is not inside of a word.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_AT_BEGINNING = re.compile(r"^(\s*)(?:([#+=-])|(\d+)(?=[.)](?:\s|$))|)")


class Markdown(str):
    """Text that is Markdown already, and not escaped again."""


def escaped(value: object) -> Markdown:
    """Returns a value's text such that Markdown shows it as it is: no links, no HTML, one line."""
    if isinstance(value, Markdown):
        return value
    text = _AT_BEGINNING.sub(_as_letters, _SPECIAL.sub(r"\\\1", one_line(str(value))))
    return Markdown(text)


def _as_letters(found: re.Match[str]) -> str:
    """Returns a line's beginning such that it is no list, heading or code."""
    blanks, mark, number = found.groups()
    return ("&#32;" + blanks[1:] if blanks else "") + (f"\\{mark}" if mark else f"{number}\\" if number else "")


def filled(template: str, *values: object, **named: object) -> Markdown:
    """Returns Markdown with values put in, as `str.format` does, each escaped."""
    return Markdown(template.format(*map(escaped, values), **{name: escaped(value) for name, value in named.items()}))


def code(value: object) -> Markdown:
    """Returns a value's text as inline code."""
    text = one_line(str(value))
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{pad}{text}{pad}{fence}")


def row(*cells: object) -> str:
    """Returns a line of a table. Cells are Markdown; what would end one is escaped."""
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", one_line(str(cell))) for cell in cells) + " |"


def table(header: Sequence[object], rows: Iterable[Sequence[object]], texts: int = 1) -> list[str]:
    """Returns the lines of a table: the first `texts` columns are text, the others figures, on the right."""
    rule = ["---" if number < texts else "---:" for number in range(len(header))]
    return [row(*cells) for cells in (header, rule, *rows)]
