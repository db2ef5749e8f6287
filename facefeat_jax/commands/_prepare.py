"""`facefeat prepare`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.kinds import MAX_IMAGE_SIZE, DecodePolicy, FrameName
from facefeat_jax.system.progress import say, show, show_json


@dataclass(frozen=True)
class Arguments:
    """Checks every picture of the downloaded data sets and stores them for training."""

    GROUPS: ClassVar = {"Your own pictures (folder)": ("task", "name", "group", "frame", "about_colour")}

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Data sets to prepare: fairface, glasses, apparel, avatars (drawn by the project, without a download), or folder:
    your own pictures, in a folder for each class or with a CSV file (`file,label`) beside them."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from", aliases=["--downloads"], metavar="DIR")] = None
    """The download: a folder or a zip file. For several data sets, the folder that contains one folder or zip file for
    each, by name (fairface/ or fairface.zip). For `folder` also the CSV file."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    overwrite: bool = False
    """Replace data sets that are already prepared."""
    json: bool = False
    """Print the counts as JSON; for several data sets, as a list."""
    image_size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Also fill the cache of decoded pictures, for training at this size: each picture is then decoded once in all.
    Without it, training fills the cache when it first needs it, as it does with --limit, --disjoint, and trunks whose
    weights want bicubic resizing."""
    decode: DecodePolicy | None = None
    """With --image-size: the decode policy of the recipe you will train. The default is upright; `baseline` uses
    as_notebook."""
    task: str | None = None
    """Name of the attribute that the classes are of, such as `hat`. The head that learns it gets this name."""
    name: str | None = None
    """Name of the data set. The default is that of the task."""
    group: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column of the CSV file, such as `person`, whose values are kept together: all pictures of one are for training,
    or all for validation."""
    frame: FrameName = "whole"
    """The part of a person that the pictures show, which --faces of `predict` cuts out of photographs."""
    about_colour: bool = False
    """The classes depend on colours: training then never changes the colours of these pictures."""


def run(arguments: Arguments) -> int:
    """Prepares the data sets in turn and prints what was kept; returns the exit code.

    Raises:
      UserError: a name or a download is wrong (nothing is prepared then), or a data set can't be written.
    """
    from facefeat_jax.data.builders import list_sources
    from facefeat_jax.data.dataset import default_data_dir
    from facefeat_jax.data.pixels import PixelFormat
    from facefeat_jax.data.prepare import find_downloads, prepare

    if arguments.image_size is not None and not 1 <= arguments.image_size <= MAX_IMAGE_SIZE:
        raise UserError(f"--image-size {arguments.image_size} must be 1 to {MAX_IMAGE_SIZE}")
    if arguments.decode and arguments.image_size is None:
        raise UserError("--decode is for --image-size; give that too, or leave it out")
    if not arguments.sources:
        raise UserError(f"name a data set: facefeat prepare NAME. Choose from {', '.join(list_sources())}")
    data_dir = arguments.data_dir or default_data_dir()
    if arguments.sources == ("folder",):
        name, path = _own(arguments, data_dir)
        downloads: dict[str, Path | None] = {name: path}
    else:
        # Find all of them before preparing the first, so that a wrong name is reported at once.
        downloads = find_downloads(arguments.sources, arguments.from_)
    size, decode = arguments.image_size, arguments.decode or "upright"
    pixels = PixelFormat(size, decode) if size is not None else None
    summaries = []
    for source, download in downloads.items():
        summaries.append(prepare(source, download, data_dir, overwrite=arguments.overwrite, pixels=pixels))
        if not arguments.json:
            show(*summaries[-1].lines())
    if arguments.json:
        answers = [summary.to_json() for summary in summaries]
        show_json(answers if len(answers) > 1 else answers[0])
    if arguments.sources == ("folder",):
        where = f" --data-dir {shlex.quote(str(arguments.data_dir))}" if arguments.data_dir else ""
        say(f"next: facefeat train best --sources {name} --tasks {arguments.task} --run runs/{name}{where}")
    return 0


def _own(arguments: Arguments, data_dir: Path) -> tuple[str, Path]:
    """Makes a data set of somebody's pictures known; returns its name, and where they lie."""
    from facefeat_jax.data.builders import OWN
    from facefeat_jax.data.builders.folder import find_own, read_own
    from facefeat_jax.data.dataset import dataset_dir
    from facefeat_jax.data.trees import open_tree

    path, task = arguments.from_, arguments.task
    if path is None or task is None:
        raise UserError("give the pictures and the attribute: facefeat prepare folder --from DIR --task NAME")
    table = path.name if path.suffix.lower() == ".csv" and path.is_file() else ""
    path = path.parent if table else path
    own = find_own(
        open_tree(path),
        path,
        name=arguments.name or task,
        task=task,
        group=arguments.group or "",
        frame=arguments.frame,
        about_colour=arguments.about_colour,
        table=table,
    )
    source = own.known().SOURCE
    described = dataset_dir(source, data_dir) / OWN
    if described.exists() and not arguments.overwrite and read_own(described) != own:
        raise UserError(f"{described.parent} was prepared with other classes or options; --overwrite prepares it again")
    return own.name, path
