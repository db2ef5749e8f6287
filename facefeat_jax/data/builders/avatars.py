"""TFDS builder of the avatars data set, which is drawn here; see `facefeat_jax.data.avatars`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from facefeat_jax.data.avatars import draw
from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.drawn import SEED, draw_rows
from facefeat_jax.data.listing import Picture, check_pictures
from facefeat_jax.data.selection import Row, SplitName
from facefeat_jax.data.sources import SOURCES, version_of


class Avatars(PictureBuilder):
    """Writes the avatars data set; see `PictureBuilder`."""

    SOURCE = SOURCES["avatars"]
    VERSION = tfds.core.Version(version_of(SOURCE))

    @classmethod
    def group_names(cls) -> tuple[str, ...]:
        return tuple(draw(SEED, 0).groups)

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Sequence[Any]]:
        if self._pictures is None:
            self._pictures, self._read = self._draw()
        return super()._shard_iterators_per_split(dl_manager)

    @staticmethod
    def _draw() -> tuple[Mapping[SplitName, Sequence[Picture]], Callable[[Row], bytes]]:
        rows, data = draw_rows()

        def read(row: Row) -> bytes:
            return data[row.source_file]

        return {split: check_pictures(of_split, read, split)[0] for split, of_split in rows.items()}, read
