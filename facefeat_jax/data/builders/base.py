"""What the builders of all data sets have in common: selection or drawing, features, records, shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from facefeat_jax.data import _drawn as drawn
from facefeat_jax.data._listing import Reader
from facefeat_jax.data._parts import Files, Held, Making, Part
from facefeat_jax.data.selection import NO_PICTURE, NOT_OFFERED, LayoutError, LeftOut, Row, Selection, SplitName
from facefeat_jax.data.sources import Source, not_as_expected, open_source
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.progress import Bar
from facefeat_jax.tasks import TASKS

if TYPE_CHECKING:
    from facefeat_jax.avatars import Avatar

SHARD_SIZE = 4096
"""Records in a file of records, at most."""

_MOST_FILES = 64  # of a split, if its files can be small enough: several processes write them
_LEAST = 256  # records in a file, where the split has as many


class PictureBuilder:
    """Says what a data set is and which of a download's pictures are used; `facefeat_jax.data.prepare` does the rest.

    A subclass has `SOURCE`, which says what the data set is, and `select`, which says what is used of a download. (What
    is drawn derives from `DrawnBuilder`.)

    To call one gives TFDS's own builder, with the arguments of `_tfds_builder.TfdsBuilder`: it writes pictures as their
    encoded bytes, with labels and groups, to ArrayRecord.
    """

    SOURCE: ClassVar[Source]

    def __new__(cls, **kwargs: Any) -> Any:
        # Here, not above: TFDS takes about a second, and only who writes a data set needs it.
        from facefeat_jax.data._tfds_builder import tfds_builder

        return tfds_builder(cls)(**kwargs)

    @classmethod
    def select(cls, tree: Tree, path: Path) -> Selection:
        """Returns what is used of a download.

        Args:
          tree: the opened download; `tree.files()` lists it.
          path: where it is, for messages.

        Raises:
          LayoutError: it does not look like this data set's.
          UserError: a label file in it can't be read.
        """
        raise NotImplementedError

    @classmethod
    def selected(cls, tree: Tree, path: Path) -> Selection:
        """Returns what `select` does, with what the tree skipped accounted for.

        Raises:
          UserError: the download does not look like this data set's, or a label file can't be read.
        """
        try:
            chosen = cls.select(tree, path)
        except LayoutError as error:
            zips = [name for name in tree.files() if name.lower().endswith(".zip")]
            unread = f"; {zips[0]} in it is not read, as there are pictures beside it" if zips else ""
            raise not_as_expected(cls.SOURCE, path, f"{error}{unread}") from error
        skipped, named = dict(tree.skipped), set()
        for number, left in enumerate(chosen.left_out):
            # A row whose picture is there, but is a dangling link, say: named once, with both.
            if left.reason == NO_PICTURE and (reason := skipped.get(chosen.root + left.file)):
                chosen.left_out[number] = dataclasses.replace(left, detail=f"{left.detail}: {reason}")
                named.add(chosen.root + left.file)
        chosen.left_out += [LeftOut(name, "", NOT_OFFERED, why) for name, why in tree.skipped if name not in named]
        return chosen

    @classmethod
    def gather(cls, path: Path | None, listed: Callable[[int], object] = lambda count: None) -> Download | Drawing:
        """Opens what the pictures come from: the download at `path`.

        Args:
          path: where it is.
          listed: called with the number of its files, before it is found out which of them are used.

        Raises:
          UserError: as `selected`, or there is no download.
        """
        return Download(cls, path, listed)

    @classmethod
    def group_names(cls) -> tuple[str, ...]:
        """Returns what else than the labels is known of a picture."""
        return cls.SOURCE.groups

    @classmethod
    def files_beside(cls) -> dict[str, str]:
        """Returns the text of further files that lie beside the records, by name."""
        return {}

    @classmethod
    def making(cls, gathered: Download | Drawing, **rows: Any) -> Making:
        """Returns how pictures become this data set's records; `rows` are those fields of `Making`."""
        numbers = {task: {name: number for number, name in enumerate(TASKS[task].classes)} for task in cls.SOURCE.tasks}
        return Making(numbers, gathered.reader, **rows)


class DrawnBuilder(PictureBuilder):
    """A builder that draws its pictures, so that no download is needed. A subclass has `SOURCE` and `draw`.

    It draws as many as the avatars data set has, unless `sizes` is overridden.
    """

    @classmethod
    def draw(cls, index: int) -> Avatar:
        """Draws the picture with this number, from 0, with its labels and groups. Only the number matters."""
        raise NotImplementedError

    @classmethod
    def sizes(cls) -> dict[SplitName, int]:
        """Returns the number of pictures in each split; train comes first in the numbering."""
        return drawn.sizes()

    @classmethod
    def group_names(cls) -> tuple[str, ...]:
        return tuple(cls.draw(0).groups)

    @classmethod
    def gather(cls, path: Path | None, listed: Callable[[int], object] = lambda count: None) -> Drawing:
        return Drawing(cls)


class _Gathered:
    """What the pictures of a data set come from.

    Attributes:
      reader: where all of them come from; None where `reader_of` says it.
    """

    reader: Reader | None = None

    def reader_of(self, rows: Sequence[Row]) -> Reader | None:
        """Returns where the pictures of these rows come from; None where all share `reader`."""
        return None

    def parts(self, rows: Mapping[SplitName, Sequence[Row]], folder: Path) -> list[Part]:
        """Returns the selected pictures of each split in parts, whose files will lie in a folder."""
        return [
            Part(split, start, part, folder / f"{split}-{start}.part", self.reader_of(part))
            for split, of in rows.items()
            for size in [max(1, min(SHARD_SIZE, max(_LEAST, -(-len(of) // _MOST_FILES))))]
            for start in range(0, len(of), size)
            for part in [of[start : start + size]]
        ]


class Download(_Gathered):
    """Pictures of a download; `path` is where it is."""

    def __init__(self, builder: type[PictureBuilder], path: Path | None, listed: Callable[[int], object]):
        self._tree = open_source(builder.SOURCE, path)
        listed(len(self._tree.files()))
        self._chosen = builder.selected(self._tree, path or Path())
        self.reader: Reader = Files(self._tree, self._chosen.root)

    def select(self, workers: int | None = None, *, quiet: bool = True) -> Selection:
        return self._chosen

    def size(self, row: Row) -> int:
        """Returns how many bytes a picture's file has, at most."""
        return self.reader.size(row)


class Drawing(_Gathered):
    """Pictures that are drawn."""

    def __init__(self, builder: type[DrawnBuilder]) -> None:
        self._builder = builder
        self._data: dict[str, bytes] = {}

    def select(self, workers: int | None = None, *, quiet: bool = True) -> Selection:
        sizes = self._builder.sizes()
        with Bar(f"{self._builder.SOURCE.name}: drawing", sum(sizes.values()), quiet=quiet) as bar:
            rows, self._data = drawn.draw_rows(self._builder.draw, sizes, workers=workers, advance=bar.advance)
        return Selection(rows, notes=["drawn pictures: scores on them say nothing about photographs of people"])

    def size(self, row: Row) -> int:
        """Returns how many bytes a picture takes."""
        return len(self._data[row.source_file])

    def reader_of(self, rows: Sequence[Row]) -> Reader:
        return Held({row.source_file: self._data[row.source_file] for row in rows})
