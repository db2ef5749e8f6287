"""TFDS builder of the apparel data set; see `facefeat_jax.data.sources` for what it is."""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.sources import SOURCES, instructions, version_of


class Apparel(PictureBuilder):
    """Writes the apparel data set; see `PictureBuilder`."""

    SOURCE = SOURCES["apparel"]
    VERSION = tfds.core.Version(version_of(SOURCE))
    MANUAL_DOWNLOAD_INSTRUCTIONS = instructions(SOURCE, Path("DIR"))
