"""What builders do with a listing: find the label files in it, and check that the pictures decode."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from facefeat_jax.data import selection
from facefeat_jax.data._budget import FILES
from facefeat_jax.data._reasons import fits_suffix
from facefeat_jax.data._worker_threads import worker_threads
from facefeat_jax.data.images import BadImageError, check
from facefeat_jax.data.selection import LeftOut, Row, SplitName
from facefeat_jax.data.trees import Tree, UnreadableError, digest_of
from facefeat_jax.system.errors import UserError

HOLDS = "holds"
"""How a note begins that says which format a file has in spite of its name."""

_CHUNK = 64  # pictures a thread checks at a time


@dataclass(frozen=True)
class Picture:
    """A selected picture that was seen to decode."""

    row: Row  # where it comes from and what it shows
    num_bytes: int  # size of the file
    crc32: int  # of the file's bytes
    digest: int  # digest of the file's bytes (`data._digests`)
    notes: tuple[str, ...] = ()  # what is odd about it but no reason to leave it out


def check_pictures(
    rows: Sequence[Row],
    read: Callable[[Row], bytes],
    split: SplitName,
    *,
    size: Callable[[Row], int] = lambda _: 0,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[Picture], list[LeftOut]]:
    """Reads and decodes every picture, in threads.

    Args:
      rows: the selected pictures.
      read: returns a picture's bytes; may raise `UnreadableError`.
      split: the split they are in.
      size: returns how many bytes `read` will return, at most; their memory is shared by the threads (`_budget.FILES`).
      workers: number of threads; one per core if None.
      advance: called with the number of pictures done since the last call, from this thread.

    Returns:
      Those that decode, in order, and those that don't, with the reason.
    """

    def look(row: Row) -> Picture | LeftOut:
        notes: list[str] = []
        with FILES.holding(size(row)):
            try:
                data = read(row)
                form = check(data, notes=notes)
            except (UnreadableError, BadImageError) as error:
                return LeftOut(row.source_file, split, selection.BAD_PICTURE, str(error))
            if not fits_suffix(row.source_file, form):
                notes.insert(0, f"{HOLDS} {form}")
            return Picture(row, len(data), zlib.crc32(data), digest_of(data), tuple(notes))

    pictures: list[Picture] = []
    bad: list[LeftOut] = []
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    with worker_threads(workers or os.cpu_count() or 1) as pool:
        for results in pool.map(lambda chunk: [look(row) for row in chunk], chunks):
            for result in results:
                (pictures if isinstance(result, Picture) else bad).append(result)  # type: ignore[arg-type]
            advance(len(results))
    return pictures, bad


def find(tree: Tree, wanted: str, path: Path) -> str | None:
    """Returns the file of that name that is nearest to the top, or None.

    Raises:
      UserError: there are several as near, with different content.
    """
    found = [name for name in tree.files() if name.rpartition("/")[2] == wanted]
    found.sort(key=lambda name: (name.count("/"), name))
    alike = [name for name in found if name.count("/") == found[0].count("/")]
    if len(alike) > 1 and len(set(map(content_of(tree), alike))) > 1:
        raise UserError(f"{path} holds different files {' and '.join(alike)}; keep one of them")
    return found[0] if found else None


def content_of(tree: Tree) -> Callable[[str], Hashable]:
    """Returns a function from the names of files to what is the same for files of the same content."""

    def content(name: str) -> Hashable:
        try:
            return digest_of(tree.read(name))
        except UnreadableError:
            return name

    return content


def text_of(tree: Tree, name: str, path: Path) -> bytes:
    """Returns the content of a label file; raises `UserError` where it can't be read."""
    try:
        return tree.read(name)
    except UnreadableError as error:
        raise UserError(f"{path}: {name} can't be read ({error})") from error
