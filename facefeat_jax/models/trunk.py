"""What every trunk offers to the rest of the system."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

POOLED = "pooled"
"""What stands for the output of `Trunk.pool` where the name of a stage is asked for."""


class Trunk(nnx.Module):
    """A network from images to pooled features, made of named stages that are run one after the other.

    A subclass has `STAGES`, `stage` and `pool`; running several stages is the same for all.

    Attributes:
      STAGES: which modules make up each named stage, in order: what is trained or frozen together.
      in_channels: channels of the images.
      num_features: width of the pooled features.
      dtype: of the computation.
      fc: the classifier that the published weights come with, or None.
    """

    STAGES: ClassVar[dict[str, tuple[str, ...]]]
    in_channels: int
    num_features: int
    dtype: DTypeLike
    fc: nnx.Linear | None

    def stage(self, name: str, inputs: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Runs one stage on the output of the one before (the first: on images); `mask` as in `stages`."""
        raise NotImplementedError

    def pool(self, inputs: jax.Array) -> jax.Array:
        """Maps the last stage's output to pooled features `[batch, num_features]`, or logits with a classifier."""
        raise NotImplementedError

    def stages(self, images: jax.Array, *, mask: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns the map after each stage, by its name in `STAGES`.

        Args:
          images: `[batch, height, width, in_channels]`, floating point, normalised (`models.preprocessing`).
          mask: `[batch]`, true for real rows; in training mode batch statistics are taken over these alone.

        Raises:
          ValueError: the array is not NHWC with `in_channels` channels, or not floating point.
        """
        check_images(images, self.in_channels)
        maps: dict[str, jax.Array] = {}
        x = images
        for name in self.STAGES:
            maps[name] = x = self.stage(name, x, mask=mask)
        return maps

    def __call__(
        self, inputs: jax.Array, *, mask: jax.Array | None = None, after: str | None = None, until: str | None = None
    ) -> jax.Array:
        """Returns pooled features `[batch, num_features]`, or logits `[batch, num_classes]` with a classifier.

        Args:
          inputs: images as in `stages`; with `after`, the output of that stage.
          mask: as in `stages`.
          after: the stage that `inputs` come from; those up to it are left out.
          until: return the output of this stage instead.

        Raises:
          ValueError: as `stages`.
        """
        names = list(self.STAGES)
        if after is None:
            check_images(inputs, self.in_channels)
        else:
            names = names[names.index(after) + 1 :]
        x = inputs
        for name in names:
            x = self.stage(name, x, mask=mask)
            if name == until:
                return x
        return self.pool(x)


def check_images(images: jax.Array, in_channels: int) -> None:
    """Raises ValueError for what is not a batch of floating-point NHWC images with that many channels."""
    if images.ndim != 4 or images.shape[-1] != in_channels:
        hint = " It looks like NCHW: transpose it." if images.ndim == 4 and images.shape[1] == in_channels else ""
        raise ValueError(f"expected images of shape [batch, height, width, {in_channels}], got {images.shape}.{hint}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"expected floating-point images, got {images.dtype}: normalise them first "
            "(facefeat_jax.models.preprocessing.normalize)"
        )
