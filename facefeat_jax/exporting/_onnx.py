"""ONNX files: their bytes, and running them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime

from facefeat_jax.exporting._onnx_graph import INPUT, build
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.runs._about import EXPORTED
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError

_LARGEST = 2**31 - 1  # bytes that protobuf takes


def to_bytes(model: MultiTaskModel, spec: ModelSpec, temperatures: Mapping[str, float], about: str) -> bytes:
    """Returns the file of a model.

    Args:
      model: the model, in float32.
      spec: what it is.
      temperatures: by head.
      about: its description.

    Raises:
      UserError: the trunk has no ONNX form, or the file would be too large.
    """
    return described(build(model, spec, temperatures), spec, about)


def described(made: onnx.ModelProto, spec: ModelSpec, about: str) -> bytes:
    """Returns the file of an ONNX model with its description; arguments and errors as of `to_bytes`."""
    made.metadata_props.add(key=EXPORTED, value=about)
    if made.ByteSize() > _LARGEST:
        raise UserError(f"{spec.trunk} is too large for one ONNX file (2 GiB); export it with --to stablehlo")
    onnx.checker.check_model(made)
    return made.SerializeToString(deterministic=True)


def runner(content: bytes) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns a function from pictures, uint8 `[n, size, size, 3]`, to the outputs of a file, run by ONNX Runtime."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda pictures: dict(zip(names, session.run(names, {INPUT: pictures}), strict=True))
