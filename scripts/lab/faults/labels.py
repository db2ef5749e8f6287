"""Label tables in every state: what spreadsheets and downloads do to them, and plain damage."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facefeat_jax.data.builders.fairface import select
from facefeat_jax.data.selection import LayoutError, Row, Selection
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.tables import read_table
from faults.mutate import MUTATIONS, mutated
from faults.tally import Tally

DEFAULT_COUNT = 4000
MOST_SECONDS = 5.0  # for a table of 40 rows
Lines = list[list[str]]

_AGES = ("0-2", "3-9", "10-19", "20-29", "more than 70")
_AS_DATES = {"3-9": ("9-Mar", "Mar-09", "3/9/2024", "2024-03-09", "45360"), "10-19": ("19-Oct", "Oct-19", "45584")}


def run(work: Path, *, count: int, seed: int) -> Tally:
    """Reads `count` tables; each has to be read as it should or refused in one line, every row accounted for."""
    tally = Tally(
        "label files",
        "Label tables with byte order marks, other line endings, quotes, missing or added columns, duplicate rows, "
        "unknown classes, ages that a spreadsheet turned into dates, and random damage. Each must be read correctly or "
        "refused in one line, with every row accounted for",
    )
    kinds = [*_HARMLESS, *_FAULTY, *_REFUSED, *MUTATIONS]
    for number in range(count):
        random = np.random.RandomState([seed, number])
        kind = kinds[number % len(kinds)]
        lines = _table(random)
        started = time.monotonic()
        try:
            failure = _tried(kind, lines, random)
        except Exception as error:  # anything but what `_tried` expects is a crash
            failure = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - started
        if seconds > MOST_SECONDS:
            failure = failure or f"took {seconds:.1f} s"
        tally.add(not failure, kind, f"table {number} of seed {seed}: {failure}")
    return tally


def _table(random: np.random.RandomState) -> Lines:
    lines = [["file", "age", "gender", "race"]]
    for number in range(40):
        age = _AGES[random.randint(len(_AGES))]
        lines.append([f"train/{number}.jpg", age, ("Male", "Female")[random.randint(2)], f"East, {random.randint(3)}"])
    return lines


def _bytes(lines: Lines, **options: object) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, **{"lineterminator": "\n", **options}).writerows(lines)  # type: ignore[arg-type]
    return file.getvalue().encode()


def _select(data: bytes) -> tuple[Selection, int]:
    rows = read_table(data, "labels.csv", ("file", "gender", "race"))
    return select({"train": rows}), len(rows)


def _wanted(lines: Lines) -> list[Row]:
    return _select(_bytes(lines))[0].rows["train"]


def _tried(kind: str, lines: Lines, random: np.random.RandomState) -> str:
    """Returns what went wrong with one table, or nothing."""
    if kind in _HARMLESS:
        found, wanted = _select(_HARMLESS[kind](lines, random))[0].rows["train"], _wanted(lines)
        return (
            ""
            if [_plain(row) for row in found] == [_plain(row) for row in wanted]
            else "other rows than the plain table's"
        )
    if kind in _FAULTY:
        victim = int(random.randint(1, len(lines)))
        spoil, reason = _FAULTY[kind]
        selection, _ = _select(_bytes(spoil([list(line) for line in lines], victim)))
        others = [_plain(row) for index, row in enumerate(_wanted(lines), 1) if index != victim]
        left_out = [one.reason for one in selection.left_out]
        kept = [_plain(row) for row in selection.rows["train"] if kind == "a row twice" or row.source_row != victim - 1]
        if kind == "a row twice":
            others = [_plain(row) for row in _wanted(lines)]
        return (
            "" if left_out == [reason] and kept == others else f"left out {left_out}, kept {len(kept)} of {len(others)}"
        )
    try:
        data = _REFUSED[kind](lines, random) if kind in _REFUSED else mutated(_bytes(lines), kind, random, _OTHERS)
        selection, count = _select(data)
    except (UserError, LayoutError) as error:
        return "" if str(error) and "\n" not in str(error) else f"the reason is {str(error)!r}"
    accounted = len(selection.rows["train"]) + len(selection.left_out)
    if kind in _REFUSED:
        return "was read"
    return "" if accounted == count else f"{accounted} of {count} rows are accounted for"


def _plain(row: Row) -> tuple[str, str, str, str]:
    return row.source_file, row.labels["gender"], row.groups["race"], row.groups["age"]


def _with_dates(lines: Lines, random: np.random.RandomState) -> bytes:
    def dated(age: str) -> str:
        forms = _AS_DATES.get(age, (age,))
        return forms[random.randint(len(forms))]

    return _bytes([lines[0], *([file, dated(age), *rest] for file, age, *rest in lines[1:])])


def _reordered(lines: Lines, random: np.random.RandomState) -> bytes:
    order = random.permutation(len(lines[0]))
    return _bytes([[line[index] for index in order] for line in lines])


_HARMLESS: dict[str, Callable[[Lines, np.random.RandomState], bytes]] = {
    "byte order mark": lambda lines, random: b"\xef\xbb\xbf" + _bytes(lines),
    "CRLF": lambda lines, random: _bytes(lines, lineterminator="\r\n"),
    "CR": lambda lines, random: _bytes(lines, lineterminator="\r"),
    "everything quoted": lambda lines, random: _bytes(lines, quoting=csv.QUOTE_ALL),
    "blank lines": lambda lines, random: _bytes(lines).replace(b"\n", b"\n\n,,,\n\n"),
    "no end of line at the end": lambda lines, random: _bytes(lines)[:-1],
    "columns in another order": _reordered,
    "columns added": lambda lines, random: _bytes([[*line, "x", "y, z", ""] for line in lines]),
    "columns in capitals": lambda lines, random: _bytes([[name.upper() for name in lines[0]], *lines[1:]]),
    "spaces around": lambda lines, random: _bytes([[f" {field}\t" for field in line] for line in lines]),
    "backslashes": lambda lines, random: _bytes([lines[0], *([f[0].replace("/", "\\"), *f[1:]] for f in lines[1:])]),
    "ages as dates": _with_dates,
    "semicolons": lambda lines, random: _bytes(lines, delimiter=";"),
    "tabs and a line sep=": lambda lines, random: b"sep=\t\r\n" + _bytes(lines, delimiter="\t"),
}


def _set(column: int, value: str) -> Callable[[Lines, int], Lines]:
    def spoil(lines: Lines, victim: int) -> Lines:
        lines[victim][column] = value
        return lines

    return spoil


# By kind: how one row is spoiled, and the reason for which it has to be left out.
_FAULTY: dict[str, tuple[Callable[[Lines, int], Lines], str]] = {
    "a row twice": (lambda lines, victim: [*lines, lines[victim]], "labelled twice"),
    "an unknown class": (_set(2, "Other"), "unknown class"),
    "no class": (_set(2, ""), "unknown class"),
    "no group": (_set(3, " "), "label row not usable"),
    "no file": (_set(0, ""), "label row not usable"),
    "a file that climbs out": (_set(0, "../../etc/passwd"), "label row not usable"),
    "a file with an absolute name": (_set(0, "/etc/passwd"), "label row not usable"),
    "a field too many": (lambda lines, v: [*lines[:v], [*lines[v], "x"], *lines[v + 1 :]], "label row not usable"),
    "a field too few": (lambda lines, v: [*lines[:v], lines[v][:-1], *lines[v + 1 :]], "label row not usable"),
}


def _without_column(lines: Lines, random: np.random.RandomState) -> bytes:
    gone = int(random.choice([0, 2, 3]))
    return _bytes([[field for index, field in enumerate(line) if index != gone] for line in lines])


_REFUSED: dict[str, Callable[[Lines, np.random.RandomState], bytes]] = {
    "column missing": _without_column,
    "column twice": lambda lines, random: _bytes([[*line, line[2]] for line in lines]),
    "header only": lambda lines, random: _bytes(lines[:1]),
    "header missing": lambda lines, random: _bytes(lines[1:]),
    "nothing": lambda lines, random: b"",
    "bars": lambda lines, random: _bytes(lines, delimiter="|"),
    "UTF-16": lambda lines, random: _bytes(lines).decode().encode("utf-16"),
    "Latin-1": lambda lines, random: (
        _bytes([lines[0], ["train/caf\u00e9.jpg", *lines[1][1:]]]).decode().encode("latin-1")
    ),
    "a quote that never ends": lambda lines, random: _bytes(lines) + b'"train/9.jpg,3-9,Male,x\n',
    "a field of a megabyte": lambda lines, random: _bytes([*lines, ["x" * 2**20, "", "", ""]]),
    "a spreadsheet": lambda lines, random: b"PK\x03\x04" + bytes(random.randint(0, 256, 3000).astype(np.uint8)),
}
_OTHERS = [b"PK\x03\x04\x14\0\0\0", b"\xff\xfef\0i\0l\0e\0", b"<html><body><table><tr><td>", b'"', b"\0" * 300]
