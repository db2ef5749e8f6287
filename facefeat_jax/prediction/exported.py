"""Answers for pictures from an exported ONNX file, by ONNX Runtime. Imports no JAX."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime

from facefeat_jax.data.images import decode_resized
from facefeat_jax.prediction._inputs import Reader, content_of
from facefeat_jax.prediction._pictures import PicturePredictor
from facefeat_jax.runs._about import EXPORTED, POOLED
from facefeat_jax.runs._head_calibration import HeadCalibration, heads_from_json
from facefeat_jax.runs._head_likeness import HeadLikeness, Likeness
from facefeat_jax.system import checked_json, kinds
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.kinds import MAX_IMAGE_SIZE, DecodePolicy, FrameName, Interpolation
from facefeat_jax.system.progress import say

_INPUT = "images"
_TOLERANCE = 1e-4  # of the reference's probabilities: another processor adds up in another order
_TOLERANCE_OF_DISTANCE = 1e-2  # relative
_INT8_TOLERANCE = 0.05  # a sum that is rounded to another side changes all that follows
_LONGEST = 1 << 24  # characters of a description


@dataclass(frozen=True)
class ExportedSpec:
    """What an exported file says of its model; the fields are those of `runs.spec.ModelSpec`."""

    classes: Mapping[str, tuple[str, ...]]
    frames: Mapping[str, str]
    image_size: int
    decode: DecodePolicy
    interpolation: Interpolation

    @classmethod
    def of(cls, values: Any) -> ExportedSpec:
        """Reads the description's `spec`.

        Raises:
          ValueError: it is none.
        """
        fields = {field.name: values.get(field.name) for field in dataclasses.fields(cls)}
        classes, frames, size = fields["classes"], fields["frames"], fields["image_size"]
        if not isinstance(classes, dict) or not classes or not isinstance(frames, dict):
            raise ValueError("it does not name the classes")
        for task, names in classes.items():
            if not isinstance(names, list) or len(names) < 2 or not all(map(_is_name, [task, *names])):
                raise ValueError(f"the classes of {task!r:.40} are no names")
        if frames.keys() != classes.keys() or not set(frames.values()) <= set(get_args(FrameName)):
            raise ValueError("its frames are not those of its heads")
        if kinds.fault(size, int) or not 1 <= size <= MAX_IMAGE_SIZE:
            raise ValueError(f"its image size is {size!r:.40}")
        for name, kind in (("decode", DecodePolicy), ("interpolation", Interpolation)):
            if fields[name] not in get_args(kind):
                raise ValueError(f"its {name} is {fields[name]!r:.40}")
        return cls(**{**fields, "classes": {task: tuple(names) for task, names in classes.items()}})


class OnnxPredictor(PicturePredictor):
    """The model of an exported ONNX file, with the class names and the preprocessing that it carries.

    The file's reference picture is answered once: a file whose description is not that of its graph is refused.

    Args:
      file: what `facefeat export RUN FILE.onnx` wrote.
      batch_size: pictures per batch.
      threads: number of pictures to decode at the same time.
      read: gives the content of a picture by its name; the default reads files.

    Attributes:
      about: the file's description (docs/exporting.md).

    Raises:
      UserError: the file can't be read, is no model, is not an export of this program, or does not answer as it says.
    """

    def __init__(self, file: Path, *, batch_size: int = 32, threads: int = 4, read: Reader = content_of):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; they are not to be printed as well
        try:
            content = file.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise UserError(f"{file} can't be read ({error.strerror or error})") from error
        except Exception as error:  # ONNX Runtime's have no common base
            raise UserError(f"{file} is not a model that ONNX Runtime reads; export it again") from error
        self._digest = hashlib.sha256(content).hexdigest()
        text = self._session.get_modelmeta().custom_metadata_map.get(EXPORTED)
        if text is None:
            raise UserError(f"{file} was not written by facefeat export: its metadata have no {EXPORTED}")
        try:
            if len(text) > _LONGEST:
                raise ValueError("it is too long")
            self.about = about = checked_json.checked(checked_json.parse(text)).content
            spec, heads = ExportedSpec.of(about.get("spec")), heads_from_json(about.get("calibration"))
            likeness = about.get("likeness") and Likeness.from_json(about["likeness"], tasks=spec.classes)
            super().__init__(spec, heads, batch_size=batch_size, threads=threads, likeness=likeness, read=read)
            self._require_fit(heads)
            self._require_reference(about["reference"], exact="quantization" not in about)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: its description can't be used ({error}); export it again") from error
        if "likeness" not in about:
            say(
                f"{file} was written by an earlier version: whether pictures are unlike the training pictures can't be "
                "checked; export it again"
            )

    def _require_fit(self, heads: Mapping[str, HeadCalibration]) -> None:
        """Raises ValueError where the description is not of this graph."""
        spec = self.spec
        shapes = {value.name: value.shape[1:] for value in (*self._session.get_inputs(), *self._session.get_outputs())}
        wanted = {_INPUT: [spec.image_size, spec.image_size, 3]}
        for task, names in spec.classes.items():
            wanted[f"{task}_probabilities"] = [len(names)]
        if any(shapes.get(name) != shape for name, shape in wanted.items()) or heads.keys() != spec.classes.keys():
            raise ValueError("its heads, classes or image size are not those of the graph")
        if any(shapes.get(POOLED) != [len(like.mean)] for like in self._alike().values()):
            raise ValueError("its likeness is not of the graph's features")

    def _require_reference(self, reference: Mapping[str, Any], *, exact: bool) -> None:
        """Raises ValueError where the reference picture has other answers than it says; in int8, roughly."""
        spec = self.spec
        data = base64.b64decode(reference["png"], validate=True)
        pixels = decode_resized(data, spec.image_size, spec.decode, interpolation=spec.interpolation)
        answers, features = self._run([pixels])
        tolerance = _TOLERANCE if exact else _INT8_TOLERANCE
        for task in spec.classes:
            wanted = np.asarray(reference["probabilities"][task], np.float64)
            if wanted.shape != answers[task][0].shape or not (np.abs(answers[task][0] - wanted) <= tolerance).all():
                raise ValueError(f"its answers of {task} for the reference picture are not what it says")
        for task, like in self._alike().items():
            far, stated = float(like.distance(features)[0]), float(reference["distances"][task])
            if exact and not abs(far - stated) <= _TOLERANCE_OF_DISTANCE * abs(stated):
                raise ValueError(f"its likeness of {task} for the reference picture is not what it says")

    def _alike(self) -> Mapping[str, HeadLikeness]:
        return self.likeness.heads if self.likeness else {}

    def fingerprint(self) -> str:
        """Returns a hash of the file."""
        return self._digest

    def _answers(
        self, pixels: list[np.ndarray], sources: list[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        classes, features = self._run(pixels)
        return classes, {task: like.unlike(features) for task, like in self._alike().items()}

    def _run(self, pixels: list[np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns the probabilities by head, and the features `[n, features]` where they are asked for."""
        names = [f"{task}_probabilities" for task in self.spec.classes] + [POOLED] * bool(self._alike())
        found = self._session.run(names, {_INPUT: np.stack(pixels)})
        classes = {task: np.asarray(values, np.float64) for task, values in zip(self.spec.classes, found, strict=False)}
        return classes, found[-1] if self._alike() else np.empty((len(pixels), 0))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and name.isprintable()
