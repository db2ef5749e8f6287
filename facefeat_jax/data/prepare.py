"""`facefeat prepare`: from a download to a checked data set in ArrayRecord, all of it or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from facefeat_jax.data._drawn import draw_rows
from facefeat_jax.data._listing import HOLDS, Picture, check_pictures
from facefeat_jax.data.builders import builder_class
from facefeat_jax.data.builders.base import DrawnBuilder, PictureBuilder
from facefeat_jax.data.dataset import DIGEST, FILE, GROUP, LABEL, RECORDS, SUMMARY, dataset_dir
from facefeat_jax.data.selection import BAD_PICTURE, NO_PICTURE, UNLISTED, LeftOut, Row, Selection, SplitName
from facefeat_jax.data.sources import Source, open_source, prepare_command
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import only_one
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.tables import csv_table
from facefeat_jax.system.text import count, format_size, one_line
from facefeat_jax.tasks import TASKS

LEFT_OUT = "left_out.csv"

_NAMED = 3  # pictures of each kind that a summary names
_SHORTENING = (BAD_PICTURE, NO_PICTURE)  # reasons for which a picture that was selected is left out

_STAGING = ".preparing"
_REPLACED = ".replaced"
_SPARE_BYTES = 64 * 2**20  # listings, metadata, and what ArrayRecord adds


@dataclass(frozen=True)
class PrepareSummary:
    """What `prepare` did; `str` gives a block to print.

    Attributes:
      source: name of the data set.
      version: version of the prepared form.
      folder: where it is.
      kept: pictures per split.
      selected: pictures that the selection wanted, per split; more than `kept` where some are missing or don't decode.
      classes: per split and task the number of pictures of each class.
      left_out: files and label rows not used, by reason.
      notes: how it was selected, and what is odd about it.
      num_bytes: size of the pictures.
      largest_bytes: size of the largest of them; 0 where an earlier version prepared them.
      seconds: how long it took.
      prepared_from: the download, as an absolute path; empty where it was drawn, or an earlier version prepared it.
      already_prepared: whether it was prepared before and nothing was done.
    """

    source: str
    version: str
    folder: Path
    kept: dict[str, int]
    selected: dict[str, int]
    classes: dict[str, dict[str, dict[str, int]]]
    left_out: dict[str, int]
    notes: list[str] = field(default_factory=list)
    num_bytes: int = 0
    largest_bytes: int = 0
    seconds: float = 0.0
    prepared_from: str = ""
    already_prepared: bool = False

    @property
    def left_out_csv(self) -> Path:
        """The list of files that were left out: file, split, reason, detail."""
        return self.folder / LEFT_OUT

    def records_csv(self, split: SplitName) -> Path:
        """The listing of a split: record number, source file and row, labels, groups."""
        return self.folder / RECORDS.format(split=split)

    def to_json(self) -> dict[str, object]:
        """Returns the summary as plain values."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        return "\n".join(map(one_line, self.lines()))

    def lines(self) -> list[str]:
        """Returns the block's lines, names in them as they are."""
        title = f"{self.source} {self.version}"
        if self.already_prepared:
            origin = f" from {self.prepared_from}" if self.prepared_from else ""  # drawn, or not recorded
            title += f": already prepared{origin}, nothing to do (--overwrite prepares it again)"
        lines = [title]
        for split, kept in self.kept.items():
            short = self.selected[split] - kept
            lines.append(f"  {split:<6}{kept:>7,} pictures" + (f" ({short:,} fewer than selected)" if short else ""))
            for task, counts in self.classes[split].items():
                lines.append(f"    {task}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
        lines.append(f"  left out{sum(self.left_out.values()):>8,}")
        lines += [f"    {reason}: {count:,}" for reason, count in self.left_out.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  {format_size(self.num_bytes)} in {self.seconds:,.1f} s, in {self.folder}")
        lines.append(f"  listings: {RECORDS.format(split='*')}; left out, with reasons: {LEFT_OUT}")
        return lines


def find_downloads(sources: Sequence[str], path: Path | None) -> dict[str, Path | None]:
    """Returns, by data set, what `prepare` takes as its download; drawn pictures have none.

    Args:
      sources: names of data sets.
      path: the download of the one that has to be downloaded; of several, the folder in which each is a folder or zip
        of its data set's name.

    Raises:
      UserError: there is no such data set, or the folder does not hold one of them.
    """
    described = {name: builder_class(name).SOURCE for name in sources}
    downloaded = [name for name, source in described.items() if not source.is_drawn]
    if path is None or len(downloaded) <= 1:
        drawn_ones = None if downloaded else path  # which `prepare` refuses
        return {name: path if name in downloaded else drawn_ones for name in described}
    return {name: _download_in(path, name, downloaded) if name in downloaded else None for name in described}


def _download_in(folder: Path, name: str, names: Sequence[str]) -> Path:
    unpacked, archive = folder / name, folder / f"{name}.zip"
    if unpacked.exists() and archive.exists():
        say(f"reading {unpacked}, not {archive.name} beside it")
    for path in (unpacked, archive):
        if path.exists():
            return path
    raise UserError(
        f"{folder} holds neither {name}/ nor {name}.zip; for several data sets, --from names the folder with "
        f"one folder or zip file for each: {', '.join(names)}"
    )


def prepare(
    source: str,
    from_: Path | None,
    data_dir: Path,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> PrepareSummary:
    """Prepares a data set: selects, checks that every selected picture decodes, and writes records and listings.

    The data set is written beside its place and moved there when it is complete. What an interrupted attempt left
    behind is removed by the next one.

    Args:
      source: name of the data set.
      from_: the download, a folder or a zip; None for pictures that are drawn.
      data_dir: where prepared data sets are kept; see `facefeat_jax.data.dataset.default_data_dir`.
      overwrite: prepare again what is already prepared; the old one stays in place until the new one is complete.
      workers: threads that decode, or processes that draw; one per core if None.
      progress: show a bar, if standard error is a terminal.

    Raises:
      UserError: no such source, nothing or something else at `from_`, no usable picture in a split, `data_dir` can't
        be written to or has no room, or another process is preparing the same data set. Nothing half-written stays.
    """
    builder = builder_class(source)
    described = builder.SOURCE
    if described.is_drawn and from_ is not None:
        raise UserError(f"{source} is drawn, not read from a folder; run: {prepare_command(described)}")
    folder = dataset_dir(described, data_dir)
    if not overwrite and (earlier := _already_prepared(builder, folder, from_)):
        return earlier
    started = time.monotonic()
    gathered = _Drawing(builder) if issubclass(builder, DrawnBuilder) else _Download(builder, from_)
    try:
        with _only_writer(folder):
            if not overwrite and (earlier := _already_prepared(builder, folder, from_)):
                return earlier
            chosen = gathered.select(workers, quiet=not progress)
            pictures = _checked(described, chosen, gathered, workers, quiet=not progress)
            _require_room(folder, sum(picture.num_bytes for of_split in pictures.values() for picture in of_split))
            with _staged(folder) as staging:
                written = _write(builder, staging, pictures, gathered.read, quiet=not progress)
                summary = _summary(described, folder, chosen, pictures, from_, time.monotonic() - started)
                for split, of_split in pictures.items():
                    _write_listing(written / RECORDS.format(split=split), of_split, described)
                _write_left_out(written / LEFT_OUT, chosen.left_out)
                (written / SUMMARY).write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")
                _move_into_place(written, folder)
    except OSError as error:
        raise _storage_error(error, data_dir) from error
    return summary


class _Download:
    """Pictures of a download."""

    def __init__(self, builder: type[PictureBuilder], path: Path | None):
        self._tree = open_source(builder.SOURCE, path)
        self._chosen = builder.selected(self._tree, path or Path())

    def select(self, workers: int | None, *, quiet: bool) -> Selection:
        return self._chosen

    def read(self, row: Row) -> bytes:
        return self._tree.read(self._chosen.root + row.source_file)

    def size(self, row: Row) -> int:
        return self._tree.size(self._chosen.root + row.source_file)


class _Drawing:
    """Pictures that are drawn."""

    def __init__(self, builder: type[DrawnBuilder]) -> None:
        self._builder = builder
        self._data: dict[str, bytes] = {}

    def select(self, workers: int | None, *, quiet: bool) -> Selection:
        sizes = self._builder.sizes()
        with Bar(f"{self._builder.SOURCE.name}: drawing", sum(sizes.values()), quiet=quiet) as bar:
            rows, self._data = draw_rows(self._builder.draw, sizes, workers=workers, advance=bar.advance)
        return Selection(rows, notes=["drawn pictures: scores on them say nothing about photographs of people"])

    def read(self, row: Row) -> bytes:
        return self._data[row.source_file]

    def size(self, row: Row) -> int:
        return 0  # it is in memory already


def _checked(
    source: Source, chosen: Selection, gathered: _Download | _Drawing, workers: int | None, *, quiet: bool
) -> dict[SplitName, list[Picture]]:
    """Returns the pictures that decode; those that don't are added to what is left out."""
    pictures = {}
    for split, rows in chosen.rows.items():
        with Bar(f"{source.name}: checking {split}", len(rows), quiet=quiet) as bar:
            pictures[split], bad = check_pictures(
                rows, gathered.read, split, size=gathered.size, workers=workers, advance=bar.advance
            )
        chosen.left_out += bad
        if not pictures[split]:
            first = f"; the first is {bad[0].file}: {bad[0].detail}" if bad else ""
            raise UserError(f"{source.name}: none of the {len(rows):,} pictures selected for {split} decodes{first}")
    return pictures


def _write(
    builder: type[PictureBuilder],
    staging: Path,
    pictures: Mapping[SplitName, Sequence[Picture]],
    read: Callable[[Row], bytes],
    *,
    quiet: bool,
) -> Path:
    """Writes the records with the TFDS builder; returns the folder that they are in."""
    bar = Bar(f"{builder.SOURCE.name}: writing", sum(map(len, pictures.values())), quiet=quiet)

    def read_and_count(row: Row) -> bytes:
        bar.advance(1)
        return read(row)

    writer = builder(pictures=pictures, read=read_and_count, data_dir=staging)
    try:
        with bar:
            writer.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except (RuntimeError, ValueError) as error:
        # ArrayRecord reports a full disk as a RuntimeError with the system's message in it.
        if os.strerror(errno.ENOSPC) in str(error) or _free_bytes(staging) < 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    return Path(writer.data_dir)


def _summary(
    source: Source,
    folder: Path,
    chosen: Selection,
    pictures: Mapping[SplitName, Sequence[Picture]],
    from_: Path | None,
    seconds: float,
) -> PrepareSummary:
    notes = list(chosen.notes)
    notes += _about_pictures([picture for of_split in pictures.values() for picture in of_split])
    classes: dict[str, dict[str, dict[str, int]]] = {}
    for split, of_split in pictures.items():
        counts = {task: Counter(picture.row.labels[task] for picture in of_split) for task in source.tasks}
        classes[split] = {task: {name: counts[task][name] for name in TASKS[task].classes} for task in source.tasks}
        if absent := [name for of_task in classes[split].values() for name, count in of_task.items() if not count]:
            notes.append(f"no picture in {split} of: {', '.join(absent)}")
    missing = Counter(left.split for left in chosen.left_out if left.split and left.reason in _SHORTENING)
    return PrepareSummary(
        source=source.name,
        version=source.version,
        folder=folder,
        kept={split: len(of_split) for split, of_split in pictures.items()},
        selected={split: len(of_split) + missing[split] for split, of_split in pictures.items()},
        classes=classes,
        left_out=dict(Counter(left.reason for left in chosen.left_out).most_common()),
        notes=notes,
        num_bytes=sum(picture.num_bytes for of_split in pictures.values() for picture in of_split),
        largest_bytes=max(picture.num_bytes for of_split in pictures.values() for picture in of_split),
        seconds=round(seconds, 2),
        prepared_from=os.path.realpath(from_) if from_ else "",
    )


def _about_pictures(pictures: Sequence[Picture]) -> list[str]:
    """Returns what is odd about kept pictures, each with their number and the first names."""
    named: dict[str, list[str]] = {}
    for picture in pictures:
        for note in picture.notes:
            kind = "they hold another format than their names say" if note.startswith(HOLDS) else note
            named.setdefault(kind, []).append(picture.row.source_file)
    return [
        f"{count(len(names), 'kept picture')}: {kind} "
        f"({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}; see the listings)"
        for kind, names in named.items()
    ]


def _write_listing(path: Path, pictures: Sequence[Picture], source: Source) -> None:
    groups = list(pictures[0].row.groups)
    header = ["record", FILE, "source_row", "crc32", DIGEST, "note"]
    header += [LABEL + task for task in source.tasks] + [GROUP + group for group in groups]
    lines = [
        [number, picture.row.source_file, picture.row.source_row]
        + [f"{picture.crc32:08x}", f"{picture.digest:016x}", "; ".join(picture.notes)]
        + [picture.row.labels.get(task, "") for task in source.tasks]
        + [picture.row.groups.get(group, "") for group in groups]
        for number, picture in enumerate(pictures)
    ]
    path.write_text(csv_table(header, lines), encoding="utf-8", newline="")


def _write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    listed = [[left.file, left.split, left.reason, left.detail] for left in left_out if left.reason not in UNLISTED]
    path.write_text(csv_table(["file", "split", "reason", "detail"], sorted(listed)), encoding="utf-8", newline="")


def _already_prepared(builder: type[PictureBuilder], folder: Path, from_: Path | None) -> PrepareSummary | None:
    """Returns the summary of a data set that is in place and complete, else None.

    Raises:
      UserError: it was prepared from another download than the one that is given.
    """
    try:
        stored = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        summary = PrepareSummary(**{**stored, "folder": folder, "already_prepared": True})
    except (OSError, ValueError, TypeError):
        return None
    if issubclass(builder, DrawnBuilder) and summary.kept != builder.sizes():
        return None
    if from_ and summary.prepared_from and os.path.realpath(from_) != summary.prepared_from:
        raise UserError(
            f"{summary.source} is already prepared in {folder}, from {summary.prepared_from}; --overwrite prepares it "
            f"again from {from_}, and another --data-dir keeps both"
        )
    return summary


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Holds the lock on a data set; the system drops it with the process, however that ends."""
    parent = folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(only_one(parent / ".lock"))
        except BlockingIOError as error:
            raise UserError(f"another process is preparing {parent}; wait for it to end") from error
        replaced = parent / _REPLACED
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)  # an earlier attempt ended between the two renames
        for leftover in (replaced, parent / _STAGING):
            if leftover.exists():
                shutil.rmtree(leftover)
        yield


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    staging = folder.parent / _STAGING
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_into_place(written: Path, folder: Path) -> None:
    replaced = folder.parent / _REPLACED
    if folder.exists():
        folder.rename(replaced)
    written.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _require_room(folder: Path, num_bytes: int) -> None:
    free = _free_bytes(folder.parent)
    if free < num_bytes + _SPARE_BYTES:
        raise UserError(
            f"{folder.parent}: needs {format_size(num_bytes + _SPARE_BYTES)}, {format_size(free)} are free; "
            "make room or choose another --data-dir"
        )


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def _storage_error(error: OSError, data_dir: Path) -> UserError:
    where = error.filename or data_dir
    return UserError(f"{where}: {error.strerror or error}; nothing was written, choose another --data-dir or make room")
