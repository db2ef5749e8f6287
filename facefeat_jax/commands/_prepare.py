"""`facefeat prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import show, show_json


@dataclass(frozen=True)
class Arguments:
    """Checks every picture of the downloaded data sets and stores them for training."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Data sets to prepare: fairface, glasses, apparel, or avatars (drawn by the project, without a download)."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", aliases=["--downloads"], metavar="DIR")] = None
    """The download: a folder or a zip file. For several data sets, the folder that contains one folder or zip file for
    each, by name (fairface/ or fairface.zip)."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    overwrite: bool = False
    """Replace data sets that are already prepared."""
    json: bool = False
    """Print the counts as JSON; for several data sets, as a list."""


def run(arguments: Arguments) -> int:
    """Prepares the data sets in turn and prints what was kept; returns the exit code.

    Raises:
      UserError: a name or a download is wrong (nothing is prepared then), or a data set can't be written.
    """
    from facefeat_jax.data.builders import list_sources
    from facefeat_jax.data.dataset import default_data_dir
    from facefeat_jax.data.prepare import find_downloads, prepare

    if not arguments.sources:
        raise UserError(f"name a data set: facefeat prepare NAME. Choose from {', '.join(list_sources())}")
    # Find all of them before preparing the first, so that a wrong name is reported at once.
    downloads = find_downloads(arguments.sources, arguments.from_)
    data_dir = arguments.data_dir or default_data_dir()
    summaries = []
    for source, download in downloads.items():
        summaries.append(prepare(source, download, data_dir, overwrite=arguments.overwrite))
        if not arguments.json:
            show(*summaries[-1].lines())
    if arguments.json:
        answers = [summary.to_json() for summary in summaries]
        show_json(answers if len(answers) > 1 else answers[0])
    return 0
