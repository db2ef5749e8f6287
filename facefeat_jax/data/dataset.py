"""Prepared data sets: all labels in memory, pictures read by number."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from facefeat_jax.data._record_file import bytes_in
from facefeat_jax.data.builders import get_source, know
from facefeat_jax.data.selection import SplitName
from facefeat_jax.data.sources import Source, prepare_command
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.tables import from_csv

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS = "records-{split}.csv"
"""Name of the listing beside the records: line n + 1 is record n."""

SUMMARY = "summary.json"
FILE = "source_file"
"""The listing's column of names in the download."""

DIGEST = "digest"
"""The column of the pictures' digests (`data._digests`), in hexadecimal; earlier versions wrote none."""

LABEL, GROUP = "label_", "group_"
"""What columns of the listing begin with."""

_UNKNOWN = -1


def default_data_dir() -> Path:
    """Returns where data sets are prepared: `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def dataset_dir(source: Source, data_dir: Path) -> Path:
    """Returns the folder of a source's prepared form, in the version that this code writes and reads."""
    return data_dir / source.name / source.version


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a prepared data set.

    Attributes:
      source: name of the data set.
      split: `train` or `val`.
      classes: per task that it labels, the class names in label order, as stored in the data set.
      labels: per task `[n]`, int32; -1 where unknown.
      groups: per group `[n]`, str; blank where unknown.
      source_files: per record the file's name in the download.
      fingerprint: changes with any picture, label or the order of records; the same on every machine.
      largest_bytes: size of the largest file of the data set; 0 where an earlier version prepared it.
      digests: `[n]`, uint64; None where an earlier version prepared it (`data._digests.digests_of` has them then too).
    """

    source: str
    split: Literal["train", "val"]
    classes: dict[str, tuple[str, ...]]
    labels: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    source_files: list[str]
    fingerprint: str
    _pictures: _Pictures = field(repr=False)
    largest_bytes: int = 0
    digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source_files)

    def read(self, index: int) -> bytes:
        """Returns a picture's file as the source shipped it, read at random access; safe to call from several threads.

        Raises:
          IndexError: there is no such record.
          UserError: the records can't be read (any more).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            return self._pictures.read(index)
        except (RuntimeError, ValueError, OSError, IndexError, KeyError) as error:
            # ArrayRecord has a hash over every record; what it finds damaged is a RuntimeError.
            raise _again(get_source(self.source), f"record {index} of {self.split} can't be read ({error})") from error


def require_prepared(sources: Iterable[str], data_dir: Path) -> None:
    """Checks that data sets exist, before the slow imports. `open_split` checks their content.

    Raises:
      UserError: there is no such source, or it is not prepared.
    """
    names = list(sources)
    know(names, data_dir)
    for source in map(get_source, names):
        if not dataset_dir(source, data_dir).is_dir():
            raise _not_prepared(source, data_dir)


def count_prepared(source: str, data_dir: Path) -> dict[SplitName, int]:
    """Returns how many pictures each split of a data set has, as its summary says; nothing where that can't be read."""
    try:
        summary = json.loads((dataset_dir(get_source(source), data_dir) / SUMMARY).read_text(encoding="utf-8"))
        return {split: int(summary["kept"][split]) for split in get_args(SplitName)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def open_split(source: str, split: Literal["train", "val"], data_dir: Path) -> Split:
    """Opens one split of a prepared data set. No picture is read.

    Args:
      source: name of the data set.
      split: `train` or `val`.
      data_dir: where data sets are prepared; see `default_data_dir`.

    Raises:
      UserError: there is no such source or split, or it is not prepared, not in this version, or not complete.
    """
    know([source], data_dir)
    described = get_source(source)
    if split not in get_args(SplitName):
        raise unknown("split", split, get_args(SplitName))
    folder = dataset_dir(described, data_dir)
    if not folder.is_dir():
        raise _not_prepared(described, data_dir)
    listing = folder / RECORDS.format(split=split)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        content = listing.read_bytes()
        columns = _columns(content)
        classes = {task: tuple(_class_names(folder, task)) for task in described.tasks}
        labels = {task: _numbered(columns[LABEL + task], names) for task, names in classes.items()}
        files = columns[FILE]
        largest_bytes = max(0, int(summary.get("largest_bytes", 0)))
        digests = np.array([int(text, 16) for text in columns[DIGEST]], np.uint64) if DIGEST in columns else None
        if len(files) != summary["kept"][split]:
            raise ValueError(f"{listing.name} has {len(files)} lines, {summary['kept'][split]} were written")
        pictures = _Pictures(folder, split, len(files))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise _again(described, f"{folder} is not complete ({reason})") from error
    key = hashlib.sha256(f"{source} {described.version} {split}\n".encode() + content)
    return Split(
        source=source,
        split=split,
        classes=classes,
        labels=labels,
        groups={
            name.removeprefix(GROUP): np.array(values, dtype=str)
            for name, values in columns.items()
            if name.startswith(GROUP)
        },
        source_files=files,
        fingerprint=key.hexdigest()[:32],
        _pictures=pictures,
        largest_bytes=largest_bytes,
        digests=digests,
    )


class _File(NamedTuple):
    """A file of records, in the words of ArrayRecord's `FileInstruction`."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class _Pictures:
    """The pictures of a split, by record number, through ArrayRecord; opened at the first read."""

    def __init__(self, folder: Path, split: str, count: int):
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        lengths = {
            split_info["name"]: [int(length) for length in split_info["shardLengths"]] for split_info in info["splits"]
        }[split]
        if sum(lengths) != count:
            raise ValueError(f"{sum(lengths)} records instead of {count} in {split}")
        self._files = []
        for number, length in enumerate(lengths):
            pattern = f"*-{split}.array_record-{number:05}-of-{len(lengths):05}"
            file = next(folder.glob(pattern), None)
            if file is None:
                raise ValueError(f"no {pattern}")
            self._files.append(_File(os.fspath(file), 0, length, length))
        self._lock = threading.Lock()
        self._opened: Callable[[int], bytes] | None = None

    def read(self, index: int) -> bytes:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
        return self._opened(index)

    def _open(self) -> Callable[[int], bytes]:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        records = ArrayRecordDataSource(self._files)
        return lambda index: bytes_in(records[index], "image")

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _opened=None)


def _columns(content: bytes) -> dict[str, list[str]]:
    """Returns the columns of a listing that are kept: files, digests, labels and groups.

    Line by line: all cells of a large listing at once take ten times what is kept of them, and leave the memory in
    which that lies full of holes. Labels and groups are few texts, each held once.
    """
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""))
    header = next(lines, [])
    columns: dict[str, list[str]] = {
        name: [] for name in header if name in (FILE, DIGEST) or name.startswith((LABEL, GROUP))
    }
    places = [(header.index(name), values, name not in (FILE, DIGEST)) for name, values in columns.items()]
    known: dict[str, str] = {}
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"line {lines.line_num} has {len(line)} cells, the first has {len(header)}")
        for place, values, is_one_of_few in places:
            cell = from_csv(line[place])
            values.append(known.setdefault(cell, cell) if is_one_of_few else cell)
    return columns


def _class_names(folder: Path, task: str) -> list[str]:
    """Returns the names that TFDS stored for a ClassLabel."""
    return (folder / f"{task}.labels.txt").read_text(encoding="utf-8").splitlines()


def _numbered(names: list[str], classes: tuple[str, ...]) -> np.ndarray:
    numbers = {"": _UNKNOWN, **{name: number for number, name in enumerate(classes)}}
    return np.array([numbers[name] for name in names], np.int32)


def _not_prepared(source: Source, data_dir: Path) -> UserError:
    parent = data_dir / source.name
    found = [path.name for path in parent.iterdir() if path.name[:1].isdigit()] if parent.is_dir() else []
    if found:
        return _again(source, f"{parent} holds version {', '.join(sorted(found))}, this code reads {source.version}")
    return UserError(f"data set {source.name!r} is not prepared in {data_dir}; run: {prepare_command(source)}")


def _again(source: Source, what: str) -> UserError:
    return UserError(f"data set {source.name!r}: {what}; prepare it again: {prepare_command(source)} --overwrite")
