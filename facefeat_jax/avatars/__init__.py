"""Drawn people: the data set of the quick start, made by this code alone.

Head-and-shoulders cartoons, each with all three labels, on which the whole job (prepare, train, evaluate, predict) runs
in minutes and without a download.

**What the labels are.** They are conventions of the drawing and say nothing about people. `gender` names which of two
sets of marks is drawn: lashes, thin arched brows and painted lips are labelled `female`; heavy brows, whiskers and
unpainted lips `male`. Hair, hats, earrings, clothes and all else are thrown without a look at it. `glasses` is a frame
before the eyes (a pair pushed up into the hair does not count). `shirt` is the colour of the shirt, not of the jacket
over it, the print on it or the wall behind.

A model trained on these pictures has learned to read these pictures. It must not be pointed at photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from facefeat_jax.avatars.render import IMAGE_SIZE, render
from facefeat_jax.avatars.scene import sample_scene

VERSION = "1.0.0"
"""Changes whenever `draw` gives other pictures for the same seed."""


@dataclass(frozen=True)
class Avatar:
    """A drawn picture with what is known about it.

    Attributes:
      image: RGB, `IMAGE_SIZE` wide and high.
      labels: class name per task.
      groups: short strings to slice results by; independent of the labels.
    """

    image: Image.Image
    labels: dict[str, str]
    groups: dict[str, str]


def draw(seed: int, index: int) -> Avatar:
    """Draws one picture.

    A function of its two arguments alone: the same picture comes whatever else was drawn, in whatever process.

    Args:
      seed: seed of the data set; any integer.
      index: number of the picture, from 0. Every 32 pictures from a multiple of 32 on hold each combination of
        labels once.

    Returns:
      The picture, its labels and groups.
    """
    scene = sample_scene(seed, index)
    return Avatar(image=render(scene), labels=scene.labels, groups=scene.groups)


__all__ = ["IMAGE_SIZE", "VERSION", "Avatar", "draw"]
