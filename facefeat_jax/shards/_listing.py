"""Which shards the words of a command stand for, and what the file of answers of each is called."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from fsspec.core import has_magic

from facefeat_jax.data._reasons import is_named_as_picture
from facefeat_jax.shards._storage import Place, exists, files_below, is_folder, matches, place
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say
from facefeat_jax.system.text import count

Taken = Callable[[str], bool]
"""Takes a name and says whether that file is a picture."""

_KINDS: dict[str, Literal["tar", "parquet"]] = {".tar": "tar", ".parquet": "parquet"}


@dataclass(frozen=True)
class Shard:
    """Pictures that one worker answers into one file.

    Attributes:
      name: its name in messages and answers, without the folder that was given; the same on all machines.
      address: where it is: the file, or the folder of which it is a part.
      kind: what it is.
      files: the names of the pictures, of a part of a folder.
    """

    name: str
    address: str
    kind: Literal["tar", "parquet", "folder"]
    files: tuple[str, ...] = ()

    def output(self, suffix: str) -> str:
        """Returns the name of the file of its answers."""
        stem = self.name if self.kind == "folder" else posixpath.splitext(self.name)[0]
        return f"{stem}{suffix}"

    @property
    def source(self) -> str:
        """The folder that the name of a file is in."""
        return self.address.removesuffix(self.name).rstrip("/")


@dataclass(frozen=True)
class Listing:
    """The shards of a command.

    Attributes:
      shards: in order.
      folders: what the parts of each folder of pictures depend on, by the folder's name: on all names in it.
    """

    shards: tuple[Shard, ...]
    folders: dict[str, dict[str, Any]]

    @property
    def sources(self) -> list[str]:
        """The folders that the names of tar files and tables are in."""
        return sorted({shard.source for shard in self.shards if shard.kind != "folder"})


def taken_by(pattern: str | None) -> Taken:
    """Returns which names are those of pictures: by their ends, or by `--glob`."""
    return is_named_as_picture if pattern is None else lambda name: PurePosixPath(name).match(pattern)


def list_shards(words: Sequence[str], out: Place, *, pattern: str | None, size: int, suffix: str) -> Listing:
    """Returns the shards that words stand for.

    A word is a tar file, a Parquet table, a folder of these or of pictures, or a pattern of any of them; a folder of
    pictures is cut into parts of `size` pictures.

    Args:
      words: files, folders and patterns, on this machine or in object storage.
      out: the folder of the answers.
      pattern: which files of a folder are pictures; None goes by the ends of their names.
      size: pictures in a part of a folder, at most.
      suffix: of files of answers.

    Raises:
      UserError: a word stands for nothing, the answers would lie among the shards, or two would have one name.
    """
    shards: list[Shard] = []
    folders: dict[str, dict[str, Any]] = {}
    for word in words:
        for shard in _of_word(word, out, taken_by(pattern), size, folders):
            if out.holds(place(shard.address)):
                raise UserError(f"the folder of the answers, {out.address}, holds the shard {shard.name}; give another")
            shards.append(shard)
    names = Counter(shard.output(suffix) for shard in shards)
    if twice := [name for name, number in names.items() if number > 1]:
        same = ", ".join(shard.address for shard in shards if shard.output(suffix) == twice[0])
        raise UserError(
            f"{same} would all be answered in {twice[0]}; name the folder above them, or give them different folders"
        )
    return Listing(tuple(shards), folders)


def _of_word(word: str, out: Place, taken: Taken, size: int, folders: dict[str, dict[str, Any]]) -> Iterator[Shard]:
    where = place(word)
    is_pattern = has_magic(where.path) and not exists(where)
    above = where.path.rstrip("/")
    if is_pattern:
        above, found = above[: min(above.index(mark) for mark in "*?[" if mark in above)], matches(where)
        if not found:
            raise UserError(f"{word}: no file or folder fits this pattern")
    elif exists(where):
        found = [where]
    else:
        raise UserError(f"{word}: there is no such file or folder")
    above = above.rpartition("/")[0]
    for one in found:
        name = one.path.removeprefix(above).strip("/")
        if is_folder(one):
            if one.holds(out):
                raise UserError(f"{out.address} lies in {word}, whose files are the shards; give another folder")
            yield from _in_folder(one, name, f"{name}/" if is_pattern else "", taken, size, folders)
        elif kind := _KINDS.get(posixpath.splitext(one.path)[1].lower()):
            yield Shard(name, one.address, kind)
        else:
            raise UserError(
                f"{one.address}: a shard is a .tar or .parquet file or a folder; pictures go without --out-folder"
            )


def _in_folder(
    folder: Place, name: str, prefix: str, taken: Taken, size: int, folders: dict[str, dict[str, Any]]
) -> Iterator[Shard]:
    files = files_below(folder)
    kinds = {file: kind for file in files if (kind := _KINDS.get(posixpath.splitext(file)[1].lower()))}
    pictures = [] if kinds else [file for file in files if taken(file)]
    if others := len(files) - len(kinds or pictures):
        say(f"{folder.address}: {count(others, 'other file')} left out{'' if kinds else '; --glob PATTERN chooses'}")
    if not kinds and not pictures:
        raise UserError(f"{folder.address}: there are no shards and no pictures in this folder")
    for file, kind in kinds.items():
        yield Shard(prefix + file, (folder / file).address, kind)
    parts = -(-len(pictures) // size)
    if parts and name in folders:
        raise UserError(f"{folder.address}: another folder given is called {name}, too; name the folder above them")
    if parts:
        digest = hashlib.sha256("\0".join(pictures).encode("utf-8", "surrogateescape")).hexdigest()
        folders[name] = {f"set of pictures in {name}": digest, "shard size": size, "source": folder.address}
    for part in range(parts):
        of = tuple(pictures[part * size : (part + 1) * size])
        yield Shard(f"{name}-{part:05}-of-{parts:05}", folder.address, "folder", of)
