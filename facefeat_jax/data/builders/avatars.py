"""The avatars data set: heads and shoulders that this project draws; see `facefeat_jax.avatars`."""

from __future__ import annotations

from facefeat_jax import avatars
from facefeat_jax.data._drawn import SEED
from facefeat_jax.data.builders.base import DrawnBuilder
from facefeat_jax.data.sources import Source


class Avatars(DrawnBuilder):
    """Draws the avatars data set; see `DrawnBuilder`."""

    SOURCE = Source(
        name="avatars",
        version=avatars.VERSION,
        tasks=("gender", "glasses", "shirt"),
        description=(
            "Drawn heads and shoulders, made by this project's own code from a seed, with all three labels on "
            "every picture. A test of the system, to be learned in minutes. No person is depicted and nothing was "
            "measured on people: what a model scores here says nothing about how it does on photographs."
        ),
        terms="Apache-2.0, as the code that draws it",
    )

    @classmethod
    def draw(cls, index: int) -> avatars.Avatar:
        return avatars.draw(SEED, index)
