"""What a trained model is, beside its numbers: enough to build it and to feed it. Travels in every checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.errors import UserError
from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from facefeat_jax.models.published import find_weights
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.tasks import Task
from facefeat_jax.types import DecodePolicy, Interpolation


@dataclass(frozen=True)
class ModelSpec:
    """The architecture, the class names and the preprocessing of one model.

    Attributes:
      trunk: name of the trunk in the registry.
      classes: class names of each task, in the order of the outputs.
      image_size: side of the pictures it was trained on, in pixels.
      decode: how files become RGB, `as_notebook` or `upright`.
      weights: where its initial weights came from.
      mean: per channel, subtracted from pictures in [0, 1].
      std: per channel, divided by.
      interpolation: how pictures are resized, `bilinear` or `bicubic`.
    """

    trunk: str
    classes: dict[str, tuple[str, ...]]
    image_size: int
    decode: DecodePolicy
    weights: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"

    @classmethod
    def following(
        cls,
        trunk: str,
        classes: dict[str, tuple[str, ...]],
        image_size: int,
        decode: DecodePolicy,
        weights: str,
    ) -> ModelSpec:
        """Makes a spec whose mean, deviation and interpolation are those that the weights were trained with.

        Weights that are not published for the trunk (random ones, a file under a name of its own) get the defaults.
        """
        entry = find_weights(trunk, weights)
        preprocessing: dict[str, Any] = (
            {"mean": entry.mean, "std": entry.std, "interpolation": entry.interpolation} if entry else {}
        )
        return cls(trunk, classes, image_size, decode, weights, **preprocessing)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, with this model's class names."""
        return tuple(Task(name, classes) for name, classes in self.classes.items())

    def build(
        self, *, rngs: nnx.Rngs, dtype: DTypeLike | None = None, param_dtype: DTypeLike = jnp.float32
    ) -> MultiTaskModel:
        """Makes the model with random weights."""
        trunk = get_architecture(self.trunk).build_for(self.weights, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        return MultiTaskModel(trunk, self.tasks, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def abstract(self, *, dtype: DTypeLike | None = None, param_dtype: DTypeLike = jnp.float32) -> MultiTaskModel:
        """Makes the model with shapes in place of weights, for loading into."""
        return abstract(self.build, dtype=dtype, param_dtype=param_dtype)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Reads what `to_json` wrote.

        Raises:
          UserError: a field is missing or unknown.
        """
        try:
            return cls(
                **{
                    **values,
                    "classes": {task: tuple(names) for task, names in values["classes"].items()},
                    "mean": tuple(values["mean"]),
                    "std": tuple(values["std"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the checkpoint's model description can't be read ({error}); use the version it was written with"
            ) from error
