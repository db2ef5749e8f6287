"""The base class of every trunk (backbone)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Required, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models.arrays import Features, Images, Logits, Mask, Stage

POOLED = "pooled"
"""What stands for the output of `Trunk.pool` where the name of a stage is asked for."""

Stages = Mapping[str, tuple[str, ...]]


class LayerOptions(TypedDict):
    """What all layers of a trunk are made with; see `TrunkOptions`."""

    dtype: DTypeLike | None
    param_dtype: DTypeLike
    rngs: nnx.Rngs


class TrunkOptions(TypedDict, total=False):
    """Options of every trunk.

    Attributes:
      num_classes: width of the classifier `fc`. None, the default, means no classifier: calling gives pooled features.
      in_channels: channels of the pictures; the default is 3.
      dtype: dtype of the computation; the default is that of inputs and parameters together.
      param_dtype: dtype of parameters and running statistics; the default is float32.
      remat: recompute the blocks' activations in the backward pass, which saves memory and costs time.
      rngs: source of the initial weights.
    """

    num_classes: int | None
    in_channels: int
    dtype: DTypeLike | None
    param_dtype: DTypeLike
    remat: bool
    rngs: Required[nnx.Rngs]


class Blocks(nnx.List):
    """The blocks of a stage: an `nnx.List` that is made without its public methods, which `nnx.tabulate` replaces."""

    def _graph_node_set_key(self, key: Any, value: Any) -> None:
        if key == len(self):
            self._set_elem(key, value)
            self._length += 1
        else:
            super()._graph_node_set_key(key, value)


class Trunk(nnx.Module):
    """A network from images to pooled features, made of named stages that run one after the other.

    A subclass defines `STAGES`, `LAST`, `stage` and `pooled`. The base class runs the stages.

    Attributes:
      STAGES: the modules of each named stage, in order. A stage is trained or frozen as a whole.
      LAST: the stages of the last block, which `--trainable last` trains (`layer4` of a ResNet).
      in_channels: channels of the images.
      num_features: width of the pooled features.
      dtype: dtype of the computation.
      remat: whether the backward pass recomputes the blocks' activations instead of keeping them.
      fc: the classifier that the published weights come with, or None.
    """

    in_channels: int
    num_features: int
    dtype: DTypeLike
    remat: bool
    fc: nnx.Linear | None

    # Properties here, so that a subclass may have class attributes or compute them.
    @property
    def STAGES(self) -> Stages:
        raise NotImplementedError

    @property
    def LAST(self) -> tuple[str, ...]:
        raise NotImplementedError

    def stage(self, name: str, inputs: Stage, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> Stage:
        """Runs one stage on the output of the previous stage (the first on images); arguments as in `stages`."""
        raise NotImplementedError

    def pooled(self, inputs: Stage) -> Features:
        """Maps the last stage's output to pooled features `[batch, num_features]`."""
        raise NotImplementedError

    def classify(self, features: Features, *, rngs: nnx.Rngs | None = None) -> Logits:
        """Maps pooled features to logits `[batch, num_classes]`.

        Raises:
          ValueError: the trunk has no classifier, or `rngs` is missing.
        """
        if self.fc is None:
            raise ValueError(f"this {type(self).__name__} has no classifier: make it with num_classes")
        return self.fc(features)

    def pool(self, inputs: Stage, *, rngs: nnx.Rngs | None = None) -> Features | Logits:
        """Maps the last stage's output to pooled features `[batch, num_features]`, or logits with a classifier."""
        features = self.pooled(inputs)
        return features if self.fc is None else self.classify(features, rngs=rngs)

    def check_size(self, images: jax.Array) -> None:
        """Raises ValueError for images `[batch, height, width, channels]` of a size that the trunk can't take."""
        if 0 in images.shape[1:3]:
            raise ValueError(f"{type(self).__name__} takes images of one pixel or more, got {images.shape}")

    def stages(self, images: Images, *, mask: Mask | None = None, rngs: nnx.Rngs | None = None) -> dict[str, Stage]:
        """Returns the map after each stage, by its name in `STAGES`.

        Args:
          images: `[batch, height, width, in_channels]`, floating point, normalised (`models.preprocessing`).
          mask: `[batch]`, true for real rows; in training mode only these count in batch statistics.
          rngs: random numbers for stochastic depth and dropout in training mode, from the stream `dropout`; not needed
            in evaluation mode or without such layers.

        Raises:
          ValueError: the array is not NHWC with `in_channels` channels, not floating point or too small; or `rngs` is
            missing.
        """
        self._check(images)
        maps: dict[str, Stage] = {}
        x = images
        for name in self.STAGES:
            maps[name] = x = self.stage(name, x, mask=mask, rngs=rngs)
        return maps

    def __call__(
        self,
        inputs: Stage,
        *,
        mask: Mask | None = None,
        after: str | None = None,
        until: str | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Features | Logits | Stage:
        """Returns pooled features `[batch, num_features]`, or logits `[batch, num_classes]` with a classifier.

        Args:
          inputs: images as in `stages`; with `after`, the output of that stage.
          mask: as in `stages`.
          after: the stage that `inputs` come from; those up to it are left out.
          until: return the output of this stage instead.
          rngs: as in `stages`.

        Raises:
          ValueError: as `stages`; or there is no such stage.
        """
        names = list(self.STAGES)
        for name in (after, until):
            if name is not None and name not in names:
                raise ValueError(_unknown_stage(name, names))
        if after is None:
            self._check(inputs)
        else:
            names = names[names.index(after) + 1 :]
            if until is not None and until not in names:
                raise ValueError(f"stage {until!r} does not come after {after!r}")
        x = inputs
        for name in names:
            x = self.stage(name, x, mask=mask, rngs=rngs)
            if name == until:
                return x
        return self.pool(x, rngs=rngs)

    def _run_block(self, block: nnx.Module, inputs: Stage, mask: Mask | None, rngs: nnx.Rngs | None) -> Stage:
        """Runs one block; with `remat`, so that the backward pass keeps its inputs only."""
        return _call_anew(block, inputs, mask, rngs) if self.remat else _call(block, inputs, mask, rngs)

    def _check(self, images: jax.Array) -> None:
        check_images(images, self.in_channels)
        self.check_size(images)


def _call(block, inputs: Stage, mask: Mask | None, rngs: nnx.Rngs | None) -> Stage:
    return block(inputs, mask=mask, rngs=rngs)


_call_anew = nnx.remat(_call)


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


def _unknown_stage(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"the trunk has no stage {name!r}.{suggestion} Stages: {', '.join(names)}"
