"""Prepared data sets, one builder for each source; pictures; the index stream and its batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefeat_jax.system import lazy

if TYPE_CHECKING:
    from facefeat_jax.data.builders import add_builder, list_sources
    from facefeat_jax.data.builders.base import DrawnBuilder, PictureBuilder
    from facefeat_jax.data.dataset import Split, default_data_dir, open_split
    from facefeat_jax.data.examples import Examples, open_examples, open_halves
    from facefeat_jax.data.feeds import Feed
    from facefeat_jax.data.images import decode, decode_resized
    from facefeat_jax.data.index_stream import IndexStream
    from facefeat_jax.data.pixels import PixelFormat, open_rows
    from facefeat_jax.data.placement import Placement
    from facefeat_jax.data.prepare import PrepareSummary
    from facefeat_jax.data.selection import LayoutError, LeftOut, Row, Selection
    from facefeat_jax.data.sources import Source
    from facefeat_jax.data.trees import Tree

_MODULES = {
    "facefeat_jax.data.builders": ["add_builder", "list_sources"],
    "facefeat_jax.data.builders.base": ["DrawnBuilder", "PictureBuilder"],
    "facefeat_jax.data.dataset": ["Split", "default_data_dir", "open_split"],
    "facefeat_jax.data.examples": ["Examples", "open_examples", "open_halves"],
    "facefeat_jax.data.feeds": ["Feed"],
    "facefeat_jax.data.images": ["decode", "decode_resized"],
    "facefeat_jax.data.index_stream": ["IndexStream"],
    "facefeat_jax.data.pixels": ["PixelFormat", "open_rows"],
    "facefeat_jax.data.placement": ["Placement"],
    "facefeat_jax.data.prepare": ["PrepareSummary"],
    "facefeat_jax.data.selection": ["LayoutError", "LeftOut", "Row", "Selection"],
    "facefeat_jax.data.sources": ["Source"],
    "facefeat_jax.data.trees": ["Tree"],
}

__all__ = [
    "DrawnBuilder",
    "Examples",
    "Feed",
    "IndexStream",
    "LayoutError",
    "LeftOut",
    "PictureBuilder",
    "PixelFormat",
    "Placement",
    "PrepareSummary",
    "Row",
    "Selection",
    "Source",
    "Split",
    "Tree",
    "add_builder",
    "decode",
    "decode_resized",
    "default_data_dir",
    "list_sources",
    "open_examples",
    "open_halves",
    "open_rows",
    "open_split",
]

__getattr__, __dir__ = lazy.names(__name__, _MODULES)
