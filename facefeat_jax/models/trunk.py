"""What every trunk offers to the rest of the system."""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import nnx
from jax.typing import DTypeLike


class Trunk(nnx.Module):
    """A network from images to pooled features; its last stage is fine-tuned, or all of it.

    Attributes:
      STAGES: which modules make up each named stage, in order: what is trained or frozen together.
      num_features: width of the pooled features.
      dtype: of the computation.
      fc: the classifier that the published weights come with, or None.
    """

    STAGES: ClassVar[dict[str, tuple[str, ...]]]
    num_features: int
    dtype: DTypeLike
    fc: nnx.Linear | None

    def stages(self, images: jax.Array, *, mask: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns the map after each stage."""
        raise NotImplementedError

    def __call__(self, images: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Returns pooled features `[batch, num_features]`, or logits where there is a classifier."""
        raise NotImplementedError
