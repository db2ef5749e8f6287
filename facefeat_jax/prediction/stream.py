"""Answers for any number of pictures, in a file that an interrupted command can continue.

The answers stand in the order of the pictures, so those in the file are always the beginning of the list: `--resume`
reads both side by side, and continues where the file ends. Memory does not grow with the number of pictures.
`FILE.about.json`, beside the file, holds what the answers depend on: those of another model are never appended.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from facefeat_jax.prediction._output import Column, columns, lines, name_from_json
from facefeat_jax.prediction.answers import Prediction, Tally
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import only_one, write_whole
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.tables import from_csv

_FORMS: dict[str, Literal["jsonl", "csv"]] = {".jsonl": "jsonl", ".csv": "csv"}
_FLUSH_EVERY = 32  # answers; what a killed process loses at most
_SAY_EVERY_S = 30.0  # where there is no terminal for a bar


@dataclass(frozen=True)
class Written:
    """What `write_answers` did."""

    pictures: int  # number of pictures with an answer in the file
    before: int  # how many of them had one before the call
    bad: int  # how many of `pictures` can't be used


def write_answers(
    stream: Callable[[Iterable[str]], Iterator[Prediction]],
    names: Iterable[str],
    out: Path,
    *,
    tasks: Sequence[str],
    about: Mapping[str, Any],
    resume: bool = False,
    group: int = 1,
    total: int | None = None,
    people: bool = False,
) -> Written:
    """Writes an answer for each picture, or for each person in it, in order, as soon as it is known.

    Args:
      stream: takes names and yields their answers in the same order: `Predictor.stream`, or what `people.people_of`
        returns.
      names: names of the picture files.
      out: the file to write. Its suffix, `.jsonl` or `.csv`, sets the format.
      tasks: names of the heads, in the order of the columns.
      about: whatever the answers depend on beside the pictures, as JSON values.
      resume: continue an existing file: its answers are kept, and an incomplete last line is replaced.
      group: number of pictures that are answered together, a batch. A resumed run begins with a whole one: the last
        digits of an answer depend on the size of its batch, and the file is to be the same as without interruption.
      total: number of names where it is known, for the progress bar.
      people: whether there may be several answers for a picture. A file does not show then whether its last picture is
        complete, and a resumed run answers its group again.

    Raises:
      UserError: the suffix is another one; the file exists and `resume` is not set; its answers are not those of these
        pictures, in this order, by this model; another process writes it; or it can't be written.
    """
    form = check_out(out, resume=resume)
    try:
        is_new = _is_new(out)
        with only_one(out):
            _settle_about(out.with_name(out.name + ".about.json"), {"form": form, **about}, is_new, out)
            with out.open("r+b") as file:
                remaining, before, bad = _skip_done(file, names, out, form, tasks, group, people)
                start = Written(before, before, bad)
                return _go_on(file, stream(remaining), out, form, tasks, start, total, people)
    except BlockingIOError:
        raise UserError(f"another process is writing {out}; wait for it, or give another file") from None
    except OSError as error:
        raise UserError(
            f"{out} can't be written ({error.strerror or error}); fix that, then continue with --resume"
        ) from error


def check_out(out: Path, *, resume: bool) -> Literal["jsonl", "csv"]:
    """Returns the format of a file to write. Quick, so that a wrong name is reported before a model is loaded.

    Raises:
      UserError: the suffix is another one, or the file exists and `resume` is not set.
    """
    form = _FORMS.get(out.suffix.lower())
    if form is None:
        raise UserError(f"{out}: the suffix sets the format; give a file {' or '.join(_FORMS)}")
    if not resume and not _is_new(out):
        raise UserError(f"{out} already exists; continue it with --resume, or give another file")
    return form


def _is_new(out: Path) -> bool:
    try:
        return not out.exists() or out.stat().st_size == 0
    except OSError as error:
        raise UserError(f"{out} can't be written ({error.strerror or error}); give another file") from error


def _settle_about(path: Path, about: Mapping[str, Any], is_new: bool, out: Path) -> None:
    """Writes what the answers come from, or compares it with what an earlier run wrote."""
    if is_new:
        write_whole(path, (json.dumps(about, indent=2) + "\n").encode())
        return
    try:
        earlier = json.loads(path.read_text())
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict):
        raise UserError(f"{path} is missing or damaged, so the model behind {out} is unknown; give another file")
    plain = json.loads(json.dumps(about))
    if differ := sorted(key for key in plain.keys() | earlier.keys() if plain.get(key) != earlier.get(key)):
        # A version whose models have more fields takes the same weights for another model.
        by = ", or by another version," if "model" in differ else ""
        raise UserError(f"{out} was made with another {', '.join(differ)}{by} (see {path}); give another file")


@dataclass(frozen=True)
class _Row:
    """An answer in the file."""

    source: str | None  # the picture's file name; None for the header
    begins: bool  # whether it is its picture's first
    is_bad: bool  # whether it says that the picture can't be used
    end: int  # where it ends in the file, in bytes


def _skip_done(
    file: IO[bytes], names: Iterable[str], out: Path, form: str, tasks: Sequence[str], group: int, people: bool
) -> tuple[Iterator[str], int, int]:
    """Walks along the answers in the file and the pictures; cuts the file after the last whole group of pictures.

    Returns:
      The names that are left, the number of pictures that are answered, and how many of them can't be used.
    """
    remaining = iter(names)
    name: str | None = None
    done = bad = whole = 0
    start = (0, 0, 0)  # where the last group begins
    since: list[str] = []  # the pictures that were answered from there on
    table = columns(tasks, people=people)
    rows = _rows_jsonl(file, out) if form == "jsonl" else _rows_csv(file, out, table, people)
    for row in rows:
        if row.source is not None:
            if row.begins:
                if done % group == 0:
                    start, since = (whole, done, bad), []
                name = next(remaining, None)
                done += 1
                since.append(row.source)
            if name != row.source:
                here = "the list ends" if name is None else f"the list has {name!r}"
                raise UserError(
                    f"{out}: answer {done:,} is for {row.source!r}, but {here}; "
                    "--resume needs the same pictures in the same order (more may follow), or give another file"
                )
            bad += row.is_bad
        whole = row.end
    if not people and done % group == 0:
        start, since = (whole, done, bad), []
    following = next(remaining, None)
    if people or following is not None:
        whole, done, bad = start
        remaining = chain(since, [] if following is None else [following], remaining)
    file.truncate(whole)
    file.seek(whole)
    return remaining, done, bad


def _rows_jsonl(file: IO[bytes], out: Path) -> Iterator[_Row]:
    """Yields each whole line's answer."""
    end = 0
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return  # cut: the process that wrote it was killed
        end += len(line)
        try:
            row = json.loads(line)
            yield _Row(name_from_json(row), row.get("person", 1) == 1, "error" in row, end)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(f"{out}, line {number:,}: not an answer of `predict`; give another file") from None


def _rows_csv(file: IO[bytes], out: Path, table: list[Column], people: bool) -> Iterator[_Row]:
    """Yields each whole row's answer, and the header; a name with a line break goes over several lines."""
    header, read = [column.name for column in table], 0

    def texts() -> Iterator[str]:
        nonlocal read
        for line in file:
            if not line.endswith(b"\n"):
                return
            read += len(line)
            yield line.decode("utf-8", "surrogateescape")

    # A head may have the name of a column; heads stand between these.
    file_at, person_at, error_at = header.index("file"), header.index("person") if people else 0, _last(header, "error")
    reader = csv.reader(texts(), strict=True)
    number = 0
    while True:
        number += 1
        try:
            row = next(reader, None)
        except csv.Error:
            row = None if file.read(1) == b"" else []  # at the end: cut inside of a name
        if row is None:
            return
        cells = list(map(from_csv, row))
        if number == 1 and (absent := _added_since(cells, table)):
            raise UserError(
                f"{out} was started by an earlier version, whose answers have no column {absent}; continue with that "
                "version, or give another file"
            )
        if len(cells) != len(header) or (number == 1 and cells != header):
            raise UserError(f"{out}, row {number:,}: not an answer of `predict` for these heads; give another file")
        if number == 1:
            yield _Row(None, False, False, read)
        else:
            begins = not people or cells[person_at] in ("", "1")
            yield _Row(cells[file_at], begins, bool(cells[error_at]), read)


def _last(names: list[str], name: str) -> int:
    return len(names) - 1 - names[::-1].index(name)


def _added_since(found: list[str], table: list[Column]) -> str:
    """Returns the columns that an earlier version did not write yet, where a file's header lacks them and only them."""
    absent = [column.name for column in table if column.is_new and column.name not in found]
    is_earlier = found == [column.name for column in table if column.name not in absent]
    return ", ".join(f"`{name}`" for name in absent) if is_earlier else ""


def _go_on(
    file: IO[bytes],
    predictions: Iterator[Prediction],
    out: Path,
    form: Literal["jsonl", "csv"],
    tasks: Sequence[str],
    start: Written,
    total: int | None,
    people: bool,
) -> Written:
    tally, said = Tally(start.pictures, start.bad), time.monotonic()
    written = lines(tally.counted(predictions), tasks, form, people=people)
    if form == "csv":
        header = next(written)  # it comes before any picture is looked at
        if not file.tell():
            file.write(header.encode() + b"\n")
    of = "" if total is None else f" of {total:,}"
    try:
        with Bar("predicting", total, completed=start.before) as bar:
            for number, line in enumerate(written, 1):
                file.write(line.encode("utf-8", "surrogateescape") + b"\n")
                if number % _FLUSH_EVERY == 0:
                    file.flush()
                bar.advance(tally.pictures - start.pictures - bar.done)
                if not bar.is_shown and time.monotonic() - said > _SAY_EVERY_S:
                    said = time.monotonic()
                    say(f"facefeat: {tally.pictures:,}{of} pictures, {bar.rate:.0f} per second")
        file.flush()
        os.fsync(file.fileno())
    except KeyboardInterrupt:
        file.flush()
        say(f"facefeat: {tally.pictures:,}{of} pictures are done; the same command with --resume continues")
        raise
    return Written(tally.pictures, start.before, tally.bad)
