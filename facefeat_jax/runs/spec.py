"""What a trained model is, beside its numbers: all that decides its answers. Travels in every checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flax import nnx

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from facefeat_jax.models.published import find_weights
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.kinds import MAX_IMAGE_SIZE, DecodePolicy, DType, FrameName, Interpolation, MatmulPrecision
from facefeat_jax.tasks import Task, frames_of

NUMERICS = ("dtype", "param_dtype", "matmul_precision")
"""The fields that versions before wrote into the run's config alone."""


@dataclass(frozen=True)
class ModelSpec:
    """The architecture, the class names, the preprocessing and the number formats of one model.

    Apart from the calibration, nothing else decides what the model's weights answer: built from the spec, with any
    version of the tables of tasks and published weights, the model gives the same answers.

    Attributes:
      trunk: name of the trunk in the registry.
      classes: class names of each task, in the order of the outputs.
      image_size: side of the pictures it was trained on, in pixels.
      decode: how files become RGB, `as_notebook` or `upright`.
      weights: where its initial weights came from.
      mean: per channel, subtracted from pictures in [0, 1].
      std: per channel, divided by.
      interpolation: how pictures are resized, `bilinear` or `bicubic`.
      dtype: dtype of the computation.
      param_dtype: dtype of parameters and statistics.
      matmul_precision: precision of float32 products.
      made_for: side in pixels of the pictures that a trunk is built for (a Vision Transformer's position embeddings);
        the default is what the weights say, None of trunks that take any size.
      frames: what of a person each head looks at; the default is the table of tasks'.

    Raises:
      UserError: no model can have such a value.
    """

    trunk: str
    classes: dict[str, tuple[str, ...]]
    image_size: int
    decode: DecodePolicy
    weights: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    matmul_precision: MatmulPrecision = "default"
    made_for: int | None = None
    frames: dict[str, FrameName] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # Files say what they like.
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal and not (isinstance(value, str) and value in get_args(kind)):
                raise unknown(name, str(value), get_args(kind))
            if kind is str and not isinstance(value, str):
                raise UserError(f"{name} must be text, got {value!r:.60}")
        architecture = get_architecture(self.trunk)
        _check_size("image_size", self.image_size)
        if self.made_for is None:
            object.__setattr__(self, "made_for", architecture.made_for(self.weights))
        else:
            _check_size("made_for", self.made_for)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))):
                raise UserError(f"{name} must be three numbers, got {values!r:.60}")
        if min(self.std) < 1e-6:
            raise UserError(f"std must be positive, got {self.std}")
        if not isinstance(self.classes, dict) or not self.classes:
            raise UserError(f"classes must name the classes of each head, got {self.classes!r:.60}")
        if not isinstance(self.frames, dict) or not self.frames.keys() <= self.classes.keys():
            raise UserError(f"frames must be those of heads ({', '.join(self.classes)}), got {self.frames!r:.60}")
        object.__setattr__(self, "frames", {**frames_of(self.classes), **self.frames})
        assert self.tasks  # each is checked as it is made

    def __hash__(self) -> int:
        # Dictionaries can't be hashed. `system.programs.kept` finds functions by it.
        return hash((self.trunk, frozenset(self.classes), self.image_size, self.dtype, self.param_dtype))

    @classmethod
    def following(
        cls,
        trunk: str,
        classes: dict[str, tuple[str, ...]],
        image_size: int,
        decode: DecodePolicy,
        weights: str,
        **others: Any,
    ) -> ModelSpec:
        """Makes a spec whose mean, deviation and interpolation are those that the weights were trained with.

        Weights that are not published for the trunk (random, or a file under a name of its own) get the defaults.
        `others` are further fields.
        """
        from weights_conversion.timm_hub import hub_preprocessing, hub_weights

        found = hub_weights(weights)
        entry = find_weights(trunk, weights) if found is None else hub_preprocessing(*found)
        if entry is not None:
            others |= {"mean": entry.mean, "std": entry.std, "interpolation": entry.interpolation}
            if found is not None and get_architecture(trunk).fixed_size:
                others["made_for"] = entry.image_size
        return cls(trunk, classes, image_size, decode, weights, **others)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, with this model's class names."""
        return tuple(Task(name, classes, frame=self.frames[name]) for name, classes in self.classes.items())

    @property
    def trunk_options(self) -> dict[str, Any]:
        """What the trunk is built with beside `TrunkOptions`."""
        return {} if self.made_for is None else {"image_size": self.made_for}

    def build(self, *, rngs: nnx.Rngs) -> MultiTaskModel:
        """Makes the model with random weights.

        Raises:
          UserError: the trunk can't be built for `made_for`.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        try:
            trunk = get_architecture(self.trunk).build(**self.trunk_options, **dtypes, rngs=rngs)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.trunk} can't be made for pictures of {self.made_for} pixels: {error}") from error
        return MultiTaskModel(trunk, self.tasks, **dtypes, rngs=rngs)

    def abstract(self) -> MultiTaskModel:
        """Makes the model with shapes in place of weights, for loading into."""
        return abstract(self.build)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any, *, where: str, before: Mapping[str, Any] | None = None) -> ModelSpec:
        """Reads what `to_json` wrote.

        Args:
          values: the fields.
          where: what the error calls them.
          before: values of fields that are missing, for descriptions by versions before this.

        Raises:
          UserError: a field is missing or unknown, or no model can have its value.
        """
        advice = "use the version it was written with, or an earlier checkpoint"
        if not isinstance(values, dict):
            raise UserError(f"{where} can't be read (it is no object); {advice}")
        fields = {**(before or {}), **values}
        try:
            for name in ("mean", "std"):
                if isinstance(fields.get(name), list):
                    fields[name] = tuple(fields[name])
            if isinstance(fields.get("classes"), dict):
                fields["classes"] = {task: _names(names) for task, names in fields["classes"].items()}
            return cls(**fields)
        except (UserError, TypeError) as error:
            raise UserError(f"{where} can't be read ({error}); {advice}") from error


def _names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"class names must be a list of text, got {names!r:.60}")
    return tuple(names)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _check_size(name: str, size: Any) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_IMAGE_SIZE:
        raise UserError(f"{name} must be a whole number from 1 to {MAX_IMAGE_SIZE}, got {size!r:.60}")
