"""What the stages of a trunk give: their strides, channels, and maps at several scales."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from facefeat_jax.models._checks import WrongCallError
from facefeat_jax.models.arrays import Stage


class StageInfo(NamedTuple):
    """A row of `Trunk.feature_info`.

    Attributes:
      name: the stage.
      channels: size of the last axis of its output.
      stride: by how much its output is smaller than the images along height and width.
    """

    name: str
    channels: int
    stride: int


def feature_info(trunk: Any) -> tuple[StageInfo, ...]:
    """Returns a row for each stage of a `Trunk`, found by running it on shapes alone; it may be abstract."""
    graphdef, state = nnx.split(trunk)
    side = 64 * trunk.multiple

    def maps(state: nnx.State, images: jax.Array) -> dict[str, Stage]:
        running = nnx.merge(graphdef, state)
        running.eval()
        return running.stages(images)

    images = jax.ShapeDtypeStruct((1, side, side, trunk.in_channels), jnp.float32)
    shapes = {name: found.shape for name, found in jax.eval_shape(maps, state, images).items()}
    # In the stages' order: JAX sorts the keys.
    return tuple(StageInfo(name, shapes[name][-1], round(side / _side(shapes[name]))) for name in trunk.STAGES)


def _side(shape: tuple[int, ...]) -> int:
    """Returns the height of a map, or of the square whose patches tokens are."""
    return shape[1] if len(shape) == 4 else math.isqrt(shape[1])


def stages_of_levels(trunk: Any, levels: int | Iterable[int] | None) -> dict[str, int]:
    """Returns the stages whose outputs are asked for, each with its stride: of each stride the last.

    Raises:
      WrongCallError: the trunk has no such stride.
    """
    last = {stride: name for name, stride in trunk.strides.items() if name not in trunk.NECK}
    several = isinstance(levels, Iterable) and not isinstance(levels, str)
    wanted = last if levels is None else tuple(levels) if several else (levels,)  # type: ignore[arg-type]
    for level in wanted:
        if level not in last:
            known = ", ".join(f"{stride} ({name})" for stride, name in sorted(last.items()))
            raise WrongCallError(
                f"this {type(trunk).__name__} has no level {level!r}; its levels are strides: {known}. "
                "For stages by their names, call stages(images)"
            )
    return {name: stride for stride, name in last.items() if stride in wanted}
