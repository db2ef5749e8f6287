"""What the builders of all data sets have in common: selection or drawing, features, records, shards."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from facefeat_jax.avatars import Avatar
from facefeat_jax.data import _drawn as drawn
from facefeat_jax.data._listing import Picture, Reader
from facefeat_jax.data._parts import Files, Held, Making, Part, Written, write_all
from facefeat_jax.data.selection import NO_PICTURE, NOT_OFFERED, LayoutError, LeftOut, Row, Selection, SplitName
from facefeat_jax.data.sources import Source, instructions, not_as_expected, open_source
from facefeat_jax.data.trees import Tree
from facefeat_jax.system.progress import Bar
from facefeat_jax.tasks import TASKS

SHARD_SIZE = 4096
"""Records in a file of records, at most."""

_MOST_FILES = 64  # of a split, if its files can be small enough: several processes write them
_LEAST = 256  # records in a file, where the split has as many

_Found = dict[SplitName, list[Picture | LeftOut]]


# Not a GeneratorBasedBuilder: that one gathers a whole split in memory before it writes, and from 1 GB on needs
# TensorFlow to spill it to disk. TFDS's own loop over the shards of this one is for a single thread.
class PictureBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder that writes pictures as their encoded bytes, with labels and groups, to ArrayRecord.

    A subclass has `SOURCE`, which says what the data set is, and `select`, which says what is used of a download. (What
    is drawn derives from `DrawnBuilder`.) `facefeat_jax.data.prepare` gives it `write`. Called through TFDS alone, it
    selects from `manual_dir`; then pass `DownloadConfig(manual_dir=...)`.

    Args:
      write: `_parts.write_all` with its options.
      gathered: what the pictures come from.
      rows: per split, the selected ones, in order.
      **kwargs: see `tfds.core.DatasetBuilder`.

    Attributes:
      found: per split, once it is written, what became of each selected picture.
    """

    SOURCE: ClassVar[Source]

    def __init_subclass__(cls, **kwargs: Any):
        # TFDS wants these of each class. It shall not keep a list of its own.
        super().__init_subclass__(skip_registration=True, **kwargs)
        if source := cls.__dict__.get("SOURCE"):
            cls.name = source.name
            cls.VERSION = tfds.core.Version(source.version)
            if not source.is_drawn:
                cls.MANUAL_DOWNLOAD_INSTRUCTIONS = instructions(source, Path("DIR"))

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
    def gather(cls, path: Path | None) -> Download | Drawing:
        """Opens what the pictures come from: the download at `path`.

        Raises:
          UserError: as `selected`, or there is no download.
        """
        return Download(cls, path)

    def __init__(
        self,
        *,
        gathered: Download | Drawing | None = None,
        rows: Mapping[SplitName, Sequence[Row]] | None = None,
        write: Callable[..., list[Written]] | None = None,
        file_format: str = "array_record",
        **kwargs: Any,
    ):
        self._gathered = gathered
        self._rows = rows
        self._write = write
        self.found: _Found = {}
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        source = self.SOURCE
        labels = {task: tfds.features.ClassLabel(names=list(TASKS[task].classes)) for task in source.tasks}
        return tfds.core.DatasetInfo(
            builder=self,
            description=source.description,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="The file as the source ships it, never encoded again."),
                    **labels,
                    "source_file": tfds.features.Text(doc="Its name in the download."),
                    "source_row": tfds.features.Scalar(np.int64, doc="Its row in the label file or sorted listing."),
                    "groups": {name: tfds.features.Text() for name in self.group_names()},
                }
            ),
            homepage=source.homepage or None,
            license=source.terms,
            citation=source.citation or None,
            # The order is the baseline's, and record n is line n of the listing beside it.
            disable_shuffling=True,
        )

    @classmethod
    def group_names(cls) -> tuple[str, ...]:
        """Returns what else than the labels is known of a picture."""
        return cls.SOURCE.groups

    @classmethod
    def files_beside(cls) -> dict[str, str]:
        """Returns the text of further files that lie beside the records, by name."""
        return {}

    def _log_download_bytes(self) -> None:
        """Prints nothing: TFDS would announce a download, of unknown size, to standard output."""

    def _log_download_done(self) -> None:
        """Prints nothing; see `_log_download_bytes`."""

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Sequence[Any]]:
        raise NotImplementedError("the files of records are written by `_download_and_prepare`")

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig | None = None
    ) -> None:
        gathered, rows = self._gathered, self._rows
        if gathered is None or rows is None:  # called through TFDS alone
            gathered = self.gather(None if self.SOURCE.is_drawn else Path(dl_manager.manual_dir))
            rows = gathered.select().rows
        write = self._write or partial(write_all, self.making(gathered))
        folder = Path(self.data_path)
        parts = [
            Part(split, start, of[start : start + size], folder / f"{split}-{start}.part")
            for split, of in rows.items()
            for size in [max(1, min(SHARD_SIZE, max(_LEAST, -(-len(of) // _MOST_FILES))))]
            for start in range(0, len(of), size)
        ]
        parts = [dataclasses.replace(part, reader=gathered.reader_of(part.rows)) for part in parts]
        with tempfile.TemporaryDirectory(dir=folder) as shared:
            written = write(parts, shared=Path(shared))
        self.found = {split: [] for split in rows}
        splits = []
        for split in rows:
            lengths, files = [], []
            for part, (found, _) in zip(parts, written, strict=True):
                if part.split == split:
                    self.found[split] += found
                    if length := sum(isinstance(one, Picture) for one in found):
                        lengths.append(length)
                        files.append(part.path)
            template = self._get_filename_template(split_name=split)
            for number, file in enumerate(files):
                file.rename(os.fspath(template.sharded_filepath(shard_index=number, num_shards=len(files))))
            size = sum(picture.num_bytes for picture in self.found[split] if isinstance(picture, Picture))
            info = tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
            splits.append(info)
        self.info.set_splits(tfds.core.SplitDict(splits))

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
    def gather(cls, path: Path | None) -> Drawing:
        return Drawing(cls)


class Download:
    """Pictures of a download; `path` is where it is."""

    def __init__(self, builder: type[PictureBuilder], path: Path | None):
        self._tree = open_source(builder.SOURCE, path)
        self._chosen = builder.selected(self._tree, path or Path())

    def select(self, workers: int | None = None, *, quiet: bool = True) -> Selection:
        return self._chosen

    @property
    def reader(self) -> Reader:
        """Where all pictures come from."""
        return Files(self._tree, self._chosen.root)

    def reader_of(self, rows: Sequence[Row]) -> None:
        """Returns nothing: all pictures share `reader`."""

    def size(self, row: Row) -> int:
        """Returns how many bytes a picture's file has, at most."""
        return self.reader.size(row)


class Drawing:
    """Pictures that are drawn."""

    def __init__(self, builder: type[DrawnBuilder]) -> None:
        self._builder = builder
        self._data: dict[str, bytes] = {}

    def select(self, workers: int | None = None, *, quiet: bool = True) -> Selection:
        sizes = self._builder.sizes()
        with Bar(f"{self._builder.SOURCE.name}: drawing", sum(sizes.values()), quiet=quiet) as bar:
            rows, self._data = drawn.draw_rows(self._builder.draw, sizes, workers=workers, advance=bar.advance)
        return Selection(rows, notes=["drawn pictures: scores on them say nothing about photographs of people"])

    reader: Reader | None = None

    def size(self, row: Row) -> int:
        """Returns how many bytes a picture takes."""
        return len(self._data[row.source_file])

    def reader_of(self, rows: Sequence[Row]) -> Reader:
        """Returns where the pictures of these rows come from."""
        return Held({row.source_file: self._data[row.source_file] for row in rows})
