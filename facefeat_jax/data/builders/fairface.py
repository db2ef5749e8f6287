"""TFDS builder of the fairface data set; see `facefeat_jax.data.sources` for what it is."""

from __future__ import annotations

from pathlib import Path

import tensorflow_datasets as tfds

from facefeat_jax.data.builders.base import PictureBuilder
from facefeat_jax.data.sources import SOURCES, instructions, version_of


class Fairface(PictureBuilder):
    """Writes the fairface data set; see `PictureBuilder`."""

    SOURCE = SOURCES["fairface"]
    VERSION = tfds.core.Version(version_of(SOURCE))
    MANUAL_DOWNLOAD_INSTRUCTIONS = instructions(SOURCE, Path("DIR"))
