"""One TFDS builder per source. Importing one of these modules imports TFDS."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from facefeat_jax.data.sources import Source

if TYPE_CHECKING:
    from facefeat_jax.data.builders.base import PictureBuilder


def builder_class(source: Source) -> type[PictureBuilder]:
    """Returns the builder of a source."""
    module = importlib.import_module(f"{__name__}.{source.name}")
    return getattr(module, source.name.capitalize())
