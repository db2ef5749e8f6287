"""`facefeat prepare`: from a download to a checked data set in ArrayRecord, all of it or nothing."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from facefeat_jax.data import _prepared_rows as prepared_rows
from facefeat_jax.data._croissant import CROISSANT, croissant
from facefeat_jax.data._listing import Picture
from facefeat_jax.data._parts import Early, write_all
from facefeat_jax.data._prepared_rows import PreparedRows
from facefeat_jax.data.builders import builder_class
from facefeat_jax.data.builders.base import Download, Drawing, DrawnBuilder, PictureBuilder
from facefeat_jax.data.dataset import DIGEST, FILE, GROUP, LABEL, RECORDS, SUMMARY, dataset_dir, open_split
from facefeat_jax.data.examples import Examples
from facefeat_jax.data.pixels import PixelFormat, open_rows
from facefeat_jax.data.selection import UNLISTED, LeftOut, Selection, SplitName
from facefeat_jax.data.sources import Source, prepare_command
from facefeat_jax.data.summary import LEFT_OUT, PrepareSummary, summary_of
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.files import only_one
from facefeat_jax.system.progress import Bar, say
from facefeat_jax.system.tables import csv_table
from facefeat_jax.system.text import format_size

_STAGING = ".preparing"
_REPLACED = ".replaced"
_SPARE_BYTES = 64 * 2**20  # listings, metadata, and what ArrayRecord adds


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
    pixels: PixelFormat | None = None,
) -> PrepareSummary:
    """Prepares a data set: selects, checks that every selected picture decodes, and writes records and listings.

    The data set is written beside its place and moved there when it is complete. What an interrupted attempt left
    behind is removed by the next one.

    Args:
      source: name of the data set.
      from_: the download, a folder or a zip; None for pictures that are drawn.
      data_dir: where prepared data sets are kept; see `facefeat_jax.data.dataset.default_data_dir`.
      overwrite: prepare again what is already prepared; the old one stays in place until the new one is complete.
      workers: processes that draw, decode and write; one per core if None.
      progress: show a bar, if standard error is a terminal.
      pixels: put the pictures into the cache of decoded pictures too, in this form: each is decoded once for both.

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
        return _packed(earlier, data_dir, pixels)
    _require_tfds()
    started = time.monotonic()
    with contextlib.closing(Early(workers)) as early:
        gathered = builder.gather(from_, early.start)
        try:
            with _only_writer(folder), contextlib.ExitStack() as stack:
                if not overwrite and (earlier := _already_prepared(builder, folder, from_)):
                    return _packed(earlier, data_dir, pixels)
                chosen = gathered.select(workers, quiet=not progress)
                _require_room(folder, sum(gathered.size(row) for of_split in chosen.rows.values() for row in of_split))
                staging = stack.enter_context(_staged(folder))
                rows = stack.enter_context(prepared_rows.written(folder, chosen.rows, pixels)) if pixels else None
                written, pictures = _write(builder, staging, chosen, gathered, rows, workers, early, quiet=not progress)
                summary = summary_of(described, folder, chosen, pictures, from_, time.monotonic() - started)
                for split, of_split in pictures.items():
                    _write_listing(written / RECORDS.format(split=split), of_split, described)
                _write_left_out(written / LEFT_OUT, chosen.left_out)
                for name, text in builder.files_beside().items():
                    (written / name).write_text(text, encoding="utf-8")
                (written / SUMMARY).write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")
                about = croissant(described, written, datetime.datetime.now(datetime.UTC).date())
                (written / CROISSANT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
                _move_into_place(written, folder)
                if rows is not None:
                    try:
                        rows.keep({split: _examples(source, split, data_dir) for split in pictures})
                    except OSError as error:
                        reason = error.strerror or error
                        say(f"{source} is prepared, but not the cache of its pictures ({reason}); training fills it")
        except OSError as error:
            raise _storage_error(error, data_dir) from error
    return summary


def _require_tfds() -> None:
    """Raises ModuleNotFoundError at once, though TFDS is imported only while other processes are at work."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise ModuleNotFoundError("No module named 'tensorflow_datasets'", name="tensorflow_datasets")


def _write(
    builder: type[PictureBuilder],
    staging: Path,
    chosen: Selection,
    gathered: Download | Drawing,
    rows: PreparedRows | None,
    workers: int | None,
    early: Early,
    *,
    quiet: bool,
) -> tuple[Path, dict[SplitName, list[Picture]]]:
    """Checks the pictures and writes the records of those that decode; the others are added to what is left out.

    Returns:
      The folder that the records are in, and the pictures.
    """
    name, total = builder.SOURCE.name, sum(map(len, chosen.rows.values()))
    with Bar(f"{name}: checking and writing", total, quiet=quiet) as bar:
        making = builder.making(gathered, **({"pixels": rows.pixels, "rows": rows.files} if rows else {}))
        parts = gathered.parts(chosen.rows, staging)
        with tempfile.TemporaryDirectory(dir=staging) as shared:
            done = write_all(
                making,
                parts,
                shared=Path(shared),
                workers=workers,
                early=early,
                advance=bar.advance,
                meanwhile=lambda: importlib.import_module("tensorflow_datasets"),
            )
        if rows is not None:
            rows.join(parts, done)
    writer = builder(written=list(zip(parts, done, strict=True)), data_dir=staging)
    writer.download_and_prepare()
    pictures: dict[SplitName, list[Picture]] = {}
    for split in chosen.rows:
        found = [one for part, (of_part, _) in zip(parts, done, strict=True) if part.split == split for one in of_part]
        pictures[split] = [one for one in found if isinstance(one, Picture)]
        bad = [one for one in found if isinstance(one, LeftOut)]
        chosen.left_out += bad
        if not pictures[split]:
            first = f"; the first is {bad[0].file}: {bad[0].detail}" if bad else ""
            raise UserError(f"{name}: none of the {len(found):,} pictures selected for {split} decodes{first}")
    return Path(writer.data_dir), pictures


def _packed(summary: PrepareSummary, data_dir: Path, pixels: PixelFormat | None) -> PrepareSummary:
    """Puts the pictures of a data set that was prepared before into the cache, unless they are there."""
    if pixels is not None:
        for split in get_args(SplitName):
            open_rows(_examples(summary.source, split, data_dir), pixels, "on")
    return summary


def _examples(source: str, split: SplitName, data_dir: Path) -> Examples:
    return Examples([open_split(source, split, data_dir)], {})


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
