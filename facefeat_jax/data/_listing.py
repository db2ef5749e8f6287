"""What builders do with a listing: find the label files in it, and check that the pictures decode."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple, Protocol

from PIL import Image

from facefeat_jax.data import selection
from facefeat_jax.data._budget import FILES
from facefeat_jax.data._reasons import fits_suffix
from facefeat_jax.data.images import BadImageError, check
from facefeat_jax.data.selection import LeftOut, Row, SplitName
from facefeat_jax.data.trees import Tree, UnreadableError, digest_of
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.kinds import DecodePolicy

HOLDS = "holds"
"""How a note begins that says which format a file has in spite of its name."""


class Picture(NamedTuple):
    """A selected picture that was seen to decode."""

    row: Row  # where it comes from and what it shows
    num_bytes: int  # size of the file
    crc32: int  # of the file's bytes
    digest: int  # digest of the file's bytes (`data._digests`)
    notes: tuple[str, ...] = ()  # what is odd about it but no reason to leave it out


class Reader(Protocol):
    """Where the bytes of pictures come from; it travels to other processes."""

    def read(self, row: Row) -> bytes:
        """Returns a picture's bytes; may raise `UnreadableError`."""

    def size(self, row: Row) -> int:
        """Returns how many bytes `read` will return, at most; their memory is shared (`_budget.FILES`)."""


def checked(
    row: Row,
    reader: Reader,
    split: SplitName,
    *,
    see: Callable[[DecodePolicy, Image.Image], object] | None = None,
    per_row: int = 0,
) -> tuple[Picture | LeftOut, bytes]:
    """Reads and decodes a picture.

    Args:
      row: the selected picture.
      reader: where its bytes come from.
      split: the split it is in.
      see: see `images.check`.
      per_row: see `images.check`.

    Returns:
      It with its bytes, or why it is left out, and nothing.
    """
    notes: list[str] = []
    with FILES.holding(reader.size(row)):
        try:
            data = reader.read(row)
            form = check(data, notes=notes, see=see, per_row=per_row)
        except (UnreadableError, BadImageError) as error:
            return LeftOut(row.source_file, split, selection.BAD_PICTURE, str(error)), b""
        if not fits_suffix(row.source_file, form):
            notes.insert(0, f"{HOLDS} {form}")
        return Picture(row, len(data), zlib.crc32(data), digest_of(data), tuple(notes)), data


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
