"""The base class of every trunk (backbone)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Required, TypedDict, Unpack

import jax
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import _levels
from facefeat_jax.models._checks import (
    WrongCallError,
    check_images,
    check_ready,
    check_rngs,
    check_widths,
    no_such,
)
from facefeat_jax.models._levels import StageInfo
from facefeat_jax.models._promotion import set_up
from facefeat_jax.models.arrays import Features, Images, Logits, Mask, Stage
from facefeat_jax.models.head import torch_linear

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


# What timm's and torch's users call first, and what it is here.
_ELSEWHERE = {
    "forward": "trunk(images)",
    "forward_features": "trunk(images, until=STAGE), or trunk.stages(images)",
    "forward_intermediates": "trunk.features(images, levels=...)",
    "get_classifier": "trunk.fc",
    "state_dict": "weights_conversion.to_torch(trunk)",
    "load_state_dict": "weights_conversion.to_flax(state_dict, trunk)",
    "parameters": "flax.nnx.state(trunk, nnx.Param)",
    "requires_grad_": "facefeat_jax.models.trained_parameters(trunk, stages)",
    "to": "trunk.set_attributes(dtype=...) for the dtype, jax.device_put for the device",
}


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
      fc: the classifier: `nnx.Linear`, as the published weights come with it, or any module from features to logits, or
        None. It may be assigned at any time.
      NECK: stages that only prepare pooling, and are none of the maps of `features`.
      multiple: what the height and the width of images are multiples of.
    """

    in_channels: int
    num_features: int
    dtype: DTypeLike
    remat: bool
    # Flax takes an attribute that was None first for static, which takes no module afterwards, unless it is declared.
    fc: Any = nnx.data(default=None)
    NECK: ClassVar[tuple[str, ...]] = ()

    @property
    def multiple(self) -> int:
        return 1

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
            raise WrongCallError(
                f"this {type(self).__name__} has no classifier: make it with num_classes, or call reset_classifier(n)"
            )
        return self.fc(features)

    def reset_classifier(self, num_classes: int | None, *, rngs: nnx.Rngs | None = None) -> None:
        """Replaces the classifier with a new one, which starts as the family's own does.

        Args:
          num_classes: its width; None leaves the trunk without one, so that calling it gives pooled features.
          rngs: source of its initial weights; the default is `nnx.Rngs(0)`.

        Raises:
          ValueError: that is no width, or `rngs` are none.
        """
        rngs = nnx.Rngs(0) if rngs is None else rngs
        check_rngs(rngs)
        check_widths(num_classes=num_classes)
        layers = (layer for _, layer in nnx.iter_modules(self))
        like = next(layer for layer in layers if hasattr(layer, "param_dtype") and hasattr(layer, "dtype"))
        options: LayerOptions = {"dtype": like.dtype, "param_dtype": like.param_dtype, "rngs": rngs}
        with set_up():
            self.fc = None if num_classes is None else self.new_classifier(num_classes, **options)

    def new_classifier(self, num_classes: int, **options: Unpack[LayerOptions]) -> nnx.Linear:
        """Makes a classifier of that many classes; a family whose own starts in another way has its own."""
        return torch_linear(self.num_features, num_classes, **options)

    def pool(self, inputs: Stage, *, rngs: nnx.Rngs | None = None) -> Features | Logits:
        """Maps the last stage's output to pooled features `[batch, num_features]`, or logits with a classifier."""
        features = self.pooled(inputs)
        return features if self.fc is None else self.classify(features, rngs=rngs)

    def check_size(self, images: jax.Array) -> None:
        """Raises ValueError for images `[batch, height, width, channels]` of a size that the trunk can't take."""
        if 0 in images.shape[1:3]:
            raise WrongCallError(f"{type(self).__name__} takes images of one pixel or more, got {images.shape}")

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

    @property
    def strides(self) -> dict[str, int]:
        """By how much the output of each stage is smaller than the images, along height and width."""
        return {stage.name: stage.stride for stage in _levels.feature_info(self)}

    def feature_info(self) -> tuple[StageInfo, ...]:
        """Returns name, channels and stride of each stage, in order; nothing is computed, and it may be abstract."""
        return _levels.feature_info(self)

    def features(
        self,
        images: Images,
        *,
        levels: int | Iterable[int] | None = None,
        mask: Mask | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> dict[int, Stage]:
        """Returns maps at several scales, as detection and segmentation use them; what comes after is not run.

        Args:
          images: as in `stages`.
          levels: strides of `feature_info`; the default is all that the trunk has.
          mask: as in `stages`.
          rngs: as in `stages`.

        Returns:
          By stride: the output of the last stage with it, `[batch, height / stride, width / stride, channels]`. That of
          a Vision Transformer is its patches' tokens, in place.

        Raises:
          ValueError: as `stages`; or the trunk has no such level.
        """
        wanted = _levels.stages_of_levels(self, levels)
        self._check(images)
        maps: dict[int, Stage] = {}
        x = images
        for name in self.STAGES:
            if len(maps) == len(wanted):
                break
            x = self.stage(name, x, mask=mask, rngs=rngs)
            if name in wanted:
                maps[wanted[name]] = self.as_map(x, images)
        return maps

    def as_map(self, outputs: Stage, images: Images) -> Stage:
        """Returns a stage's output on those images as a map `[batch, new_height, new_width, channels]`."""
        return outputs

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
                stages = f"Stages: {', '.join(names)}"
                raise WrongCallError(f"the trunk has {no_such('stage', name, names)} {stages}")
        if after is None:
            self._check(inputs)
        else:
            names = names[names.index(after) + 1 :]
            if until is not None and until not in names:
                raise WrongCallError(f"stage {until!r} does not come after {after!r}")
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
        check_ready(self)

    if not TYPE_CHECKING:  # to type checkers, it would have any attribute

        def __getattr__(self, name: str) -> Any:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(f"{message}: here it is {_ELSEWHERE[name]}" if name in _ELSEWHERE else message)


def _call(block, inputs: Stage, mask: Mask | None, rngs: nnx.Rngs | None) -> Stage:
    return block(inputs, mask=mask, rngs=rngs)


_call_anew = nnx.remat(_call)
