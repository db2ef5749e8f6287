"""The data sets as TFDS's own builders: what it is told of each, and the files of records put where it looks for them.

Importing this imports TFDS, which takes about a second; reading a prepared data set doesn't need it.
"""

from __future__ import annotations

import os
import tempfile
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from facefeat_jax.data._listing import Picture
from facefeat_jax.data._parts import Part, Written, write_all
from facefeat_jax.data.sources import instructions
from facefeat_jax.tasks import TASKS


# Not a GeneratorBasedBuilder: that one gathers a whole split in memory before it writes, and from 1 GB on needs
# TensorFlow to spill it to disk. TFDS's own loop over the shards of this one is for a single thread.
class TfdsBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder that writes pictures as their encoded bytes, with labels and groups, to ArrayRecord.

    Args:
      written: the files of records, with what is in each; they are moved. Without it, they are made here, from the
        download that `DownloadConfig(manual_dir=...)` names.
      **kwargs: see `tfds.core.DatasetBuilder`.
    """

    PICTURES: ClassVar[Any]  # the `builders.base.PictureBuilder`: to import that would be a circle

    def __init__(
        self,
        *,
        written: Sequence[tuple[Part, Written]] | None = None,
        file_format: str = "array_record",
        **kwargs: Any,
    ):
        self._written = written
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        source = self.PICTURES.SOURCE
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
                    "groups": {name: tfds.features.Text() for name in self.PICTURES.group_names()},
                }
            ),
            homepage=source.homepage or None,
            license=source.terms,
            citation=source.citation or None,
            # The order is the baseline's, and record n is line n of the listing beside it.
            disable_shuffling=True,
        )

    def _log_download_bytes(self) -> None:
        """Prints nothing: TFDS would announce a download, of unknown size, to standard output."""

    def _log_download_done(self) -> None:
        """Prints nothing; see `_log_download_bytes`."""

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Sequence[Any]]:
        raise NotImplementedError("the files of records are written by `_download_and_prepare`")

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig | None = None
    ) -> None:
        written, folder = self._written, Path(self.data_path)
        if written is None:  # called through TFDS alone
            gathered = self.PICTURES.gather(None if self.PICTURES.SOURCE.is_drawn else Path(dl_manager.manual_dir))
            parts = gathered.parts(gathered.select().rows, folder)
            with tempfile.TemporaryDirectory(dir=folder) as shared:
                done = write_all(self.PICTURES.making(gathered), parts, shared=Path(shared))
            written = list(zip(parts, done, strict=True))
        splits = []
        for split in dict.fromkeys(part.split for part, _ in written):
            lengths, files, size = [], [], 0
            for part, (found, _) in written:
                pictures = [one for one in found if isinstance(one, Picture)]
                if part.split == split and pictures:
                    lengths.append(len(pictures))
                    files.append(part.path)
                    size += sum(picture.num_bytes for picture in pictures)
            template = self._get_filename_template(split_name=split)
            for number, file in enumerate(files):
                file.rename(os.fspath(template.sharded_filepath(shard_index=number, num_shards=len(files))))
            info = tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
            splits.append(info)
        self.info.set_splits(tfds.core.SplitDict(splits))


def tfds_builder(pictures: Any) -> type[TfdsBuilder]:
    """Returns TFDS's builder of what a `PictureBuilder` describes."""
    source = pictures.SOURCE
    about: dict[str, Any] = {
        "PICTURES": pictures,
        "__module__": pictures.__module__,
        "__doc__": pictures.__doc__,
        "name": source.name,
    }
    if not source.is_drawn:
        about["MANUAL_DOWNLOAD_INSTRUCTIONS"] = instructions(source, Path("DIR"))
    about["VERSION"] = tfds.core.Version(source.version)
    # TFDS keeps a list of builders, in which these don't belong.
    return types.new_class(
        pictures.__name__, (TfdsBuilder,), {"skip_registration": True}, lambda made: made.update(about)
    )
