"""Text from data (names of files, folders, classes, heads), made harmless for what shows it.

Whatever prints or writes such text does it through here, `tables` (CSV), `markdown`, or the templates' own escaping.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # without them, words of Persian and Hindi look wrong


def one_line(text: str, *, keep_bytes: bool = False) -> str:
    """Returns text that is one line and only letters: what controls a terminal is written as its escape, `\\x1b`.

    Line ends, control characters, marks that turn the direction of writing, and what stands for bytes that are not
    UTF-8 (`os.fsdecode`) are written so; a backslash stays as it is.

    Args:
      text: any.
      keep_bytes: whether what stands for bytes goes out as those bytes (but for 0x80 to 0x9f, which may be control
        characters): for output that other programs read.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter, keep_bytes) else _escaped(letter) for letter in text)


def _is_harmless(letter: str, keep_bytes: bool) -> bool:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return True
    return keep_bytes and "\udca0" <= letter <= "\udcff"


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return ascii(letter)[1:-1]
