"""Prepared data sets, one builder for each source; pictures; the index stream and its batches."""

from typing import TYPE_CHECKING

from facefeat_jax.system import public_names

if TYPE_CHECKING:
    from facefeat_jax.data.builders import add_builder as add_builder
    from facefeat_jax.data.builders import list_sources as list_sources
    from facefeat_jax.data.builders.base import DrawnBuilder as DrawnBuilder
    from facefeat_jax.data.builders.base import PictureBuilder as PictureBuilder
    from facefeat_jax.data.dataset import Split as Split
    from facefeat_jax.data.dataset import default_data_dir as default_data_dir
    from facefeat_jax.data.dataset import open_split as open_split
    from facefeat_jax.data.examples import Examples as Examples
    from facefeat_jax.data.examples import open_examples as open_examples
    from facefeat_jax.data.examples import open_halves as open_halves
    from facefeat_jax.data.feeds import Feed as Feed
    from facefeat_jax.data.images import decode as decode
    from facefeat_jax.data.images import decode_resized as decode_resized
    from facefeat_jax.data.index_stream import IndexStream as IndexStream
    from facefeat_jax.data.pixels import PixelFormat as PixelFormat
    from facefeat_jax.data.pixels import open_rows as open_rows
    from facefeat_jax.data.placement import Placement as Placement
    from facefeat_jax.data.selection import LayoutError as LayoutError
    from facefeat_jax.data.selection import LeftOut as LeftOut
    from facefeat_jax.data.selection import Row as Row
    from facefeat_jax.data.selection import Selection as Selection
    from facefeat_jax.data.sources import Source as Source
    from facefeat_jax.data.summary import PrepareSummary as PrepareSummary
    from facefeat_jax.data.trees import Tree as Tree

public_names.attach(__name__)
