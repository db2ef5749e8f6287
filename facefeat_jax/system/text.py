"""Text for whoever reads it: names and other text from data made harmless, and numbers rounded so that they agree.

Whatever prints or writes text from data does it through `one_line`, `tables` (CSV), `markdown`, or the templates' own
escaping. Of numbers, what is not all is never 100%, what is not none never 0%; there is no minus zero; figures that are
compared have as many decimals as tell them apart.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # without them, words of Persian and Hindi look wrong
_MOST_DECIMALS = 4


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


def as_written(name: str) -> str:
    """Returns the name of a class, a head or a group as people write it."""
    return name.replace("_", " ")


def format_accuracy(accuracy: float, decimals: int = 1) -> str:
    """Returns a share as per cent; what is not quite all is never rounded up to 100%, nor a little down to 0%."""
    least = 10.0**-decimals
    value = 100 * accuracy
    if 0 < accuracy < 1:
        value = min(max(value, least), 100 - least)
    return f"{_plain(value, decimals)}%"


def format_area(value: float | None, decimals: int = 3) -> str:
    """Returns an AUROC, an average precision or a probability, never rounded to 1 or 0; `-` where it is not defined."""
    if value is None:
        return "-"
    least = 10.0**-decimals
    return _plain(min(max(value, least), 1 - least) if 0 < value < 1 else value, decimals)


def format_loss(loss: float) -> str:
    """Returns a loss with four decimals, small ones in powers of ten."""
    return _plain(loss, 4) if loss >= 1e-3 or loss == 0 else f"{loss:.1e}"


def format_points(share: float, decimals: int = 1) -> str:
    """Returns a difference of shares in percentage points, without a unit."""
    return _plain(100 * share, decimals)


def format_given(share: float) -> str:
    """Returns a share that somebody chose, such as `--error-rate`, in per cent with all its digits."""
    return f"{100 * share:.6g}%"


def decimals_apart(first: float, second: float) -> int:
    """Returns how many decimals, 1 or more, tell two shares apart in per cent; 1 where they are equal."""
    if first == second:
        return 1
    enough = (n for n in range(1, _MOST_DECIMALS) if format_points(first, n) != format_points(second, n))
    return next(enough, _MOST_DECIMALS)


def format_distinct(first: float, second: float, digits: int = 4) -> tuple[str, str]:
    """Returns two numbers with as many digits, `digits` or more, as show that they differ."""
    more = range(digits, 17)
    texts = ((f"{first:.{n}g}", f"{second:.{n}g}") for n in more)
    return next((pair for pair in texts if pair[0] != pair[1] or first == second), (repr(first), repr(second)))


def count(number: int, what: str) -> str:
    """Returns a number of things: `1 picture`, `2,345 pictures`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def format_size(num_bytes: float, decimals: int = 2) -> str:
    """Returns an amount of memory or disk: `7.52 GiB`, below that `816 MiB` and `3.4 MiB`; `decimals` are of GiB."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:,.{decimals}f} GiB"
    mebibytes = num_bytes / 2**20
    return f"{round(mebibytes, 1):g} MiB" if mebibytes < 10 else f"{mebibytes:,.0f} MiB"


def format_duration(seconds: float) -> str:
    """Returns a time as hours, minutes and seconds, the smaller ones only where they matter."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def wrote(number: int, what: str, folder: object) -> str:
    """Returns what a command says of files that it wrote: `wrote 5 pictures to labelled/`."""
    return f"wrote {count(number, what)} to {folder}/"


def _plain(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text
