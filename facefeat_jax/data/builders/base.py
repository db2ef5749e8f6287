"""What the builders of all data sets have in common: selection or drawing, features, records, shards."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from facefeat_jax.avatars import Avatar
from facefeat_jax.data import _drawn as drawn
from facefeat_jax.data._listing import Picture, check_pictures
from facefeat_jax.data.selection import NO_PICTURE, NOT_OFFERED, LayoutError, LeftOut, Row, Selection, SplitName
from facefeat_jax.data.sources import Source, instructions, not_as_expected, open_source
from facefeat_jax.data.trees import Tree, UnreadableError
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import Bar
from facefeat_jax.tasks import TASKS

SHARD_SIZE = 4096
"""Records in a file of records, at most."""


# Not a GeneratorBasedBuilder: that one gathers a whole split in memory before it writes, and from 1 GB on needs
# TensorFlow to spill it to disk. Shards are written as they come, in the order they come.
class PictureBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder that writes pictures as their encoded bytes, with labels and groups, to ArrayRecord.

    A subclass has `SOURCE`, which says what the data set is, and `select`, which says what is used of a download. (What
    is drawn derives from `DrawnBuilder`.) `facefeat_jax.data.prepare` gives it the pictures that it selected and
    checked. Called through TFDS alone, it does both itself from `manual_dir`; then pass
    `DownloadConfig(manual_dir=...)`.

    Args:
      pictures: per split, the pictures to write, in order.
      read: returns the bytes of a picture.
      **kwargs: see `tfds.core.DatasetBuilder`.
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
        pictures: Mapping[SplitName, Sequence[Picture]] | None = None,
        read: Callable[[Row], bytes] | None = None,
        file_format: str = "array_record",
        **kwargs: Any,
    ):
        self._pictures = pictures
        self._read = read
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
        pictures, read = self._pictures, self._read
        if pictures is None or read is None:
            # Called through TFDS alone.
            gathered = self.gather(None if self.SOURCE.is_drawn else Path(dl_manager.manual_dir))
            rows, read = gathered.select().rows, gathered.read
            pictures = {split: check_pictures(of, read, split, size=gathered.size)[0] for split, of in rows.items()}
        return {
            split: [
                _Shard(of_split[start : start + SHARD_SIZE], read)
                for start in range(0, max(len(of_split), 1), SHARD_SIZE)
            ]
            for split, of_split in pictures.items()
        }


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

    def read(self, row: Row) -> bytes:
        return self._tree.read(self._chosen.root + row.source_file)

    def size(self, row: Row) -> int:
        return self._tree.size(self._chosen.root + row.source_file)


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

    def read(self, row: Row) -> bytes:
        return self._data[row.source_file]

    def size(self, row: Row) -> int:
        return 0  # it is in memory already


class _Shard:
    """Yields the examples of one shard."""

    def __init__(self, pictures: Sequence[Picture], read: Callable[[Row], bytes]):
        self._pictures = pictures
        self._read = read

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, picture in enumerate(self._pictures):
            row = picture.row
            yield (
                number,
                {
                    "image": _Content(_reread(picture, self._read)),
                    **row.labels,
                    "source_file": row.source_file,
                    "source_row": row.source_row,
                    "groups": row.groups,
                },
            )


class _Content:
    """A picture's bytes, handed out once.

    TFDS keeps all examples of a shard until it is written, to count them; it shall not keep the bytes.
    """

    def __init__(self, data: bytes):
        self._data = data

    def read(self) -> bytes:
        """Returns the bytes and forgets them."""
        data, self._data = self._data, b""
        return data


def _reread(picture: Picture, read: Callable[[Row], bytes]) -> bytes:
    """Returns a picture's bytes; raises `UserError` if they are not those that were checked."""
    name = picture.row.source_file
    try:
        data = read(picture.row)
    except UnreadableError as error:
        raise UserError(f"{name} can't be read any more ({error}); prepare again") from error
    if zlib.crc32(data) != picture.crc32:
        raise UserError(f"{name} changed while the data set was being prepared; prepare again")
    return data
