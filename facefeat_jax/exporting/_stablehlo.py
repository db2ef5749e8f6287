"""StableHLO files: a zip archive with what `jax.export` serialises, for CPU, CUDA and TPU, and the description."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import flatbuffers  # noqa: F401 - jax.export needs it to serialise: where it is missing, that is reported at once
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export

from facefeat_jax.models._values import split_values
from facefeat_jax.models.multi_task import MultiTaskModel
from facefeat_jax.models.preprocessing import normalize
from facefeat_jax.models.trunk import POOLED as LAST
from facefeat_jax.runs._about import POOLED
from facefeat_jax.runs.spec import ModelSpec

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, ABOUT = "model.jax_export", "about.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes


def to_bytes(model: MultiTaskModel, spec: ModelSpec, temperatures: Mapping[str, float], about: str) -> bytes:
    """Returns the file of a model; arguments as of `_onnx.to_bytes`."""
    graphdef, params, batch_stats = split_values(model)

    def answer(images: jax.Array) -> dict[str, jax.Array]:
        merged = nnx.merge(graphdef, params, batch_stats, copy=True)
        pooled = merged.trunk(normalize(images, mean=spec.mean, std=spec.std))
        logits, outputs = merged(pooled, after=LAST), {POOLED: pooled}
        for task in spec.tasks:
            scaled = logits[task.name] / temperatures.get(task.name, 1.0)
            sides = (jax.nn.sigmoid(-scaled), jax.nn.sigmoid(scaled))
            outputs[f"{task.name}_probabilities"] = (
                jnp.concatenate(sides, axis=1) if task.is_binary else jax.nn.softmax(scaled, axis=1)
            )
            outputs[f"{task.name}_logits"] = logits[task.name]
        return outputs

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, spec.image_size, spec.image_size, 3), np.uint8)
    with jax.default_matmul_precision("highest"):
        program = export.export(jax.jit(answer), platforms=PLATFORMS)(images).serialize()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((PROGRAM, program), (ABOUT, about.encode())):
            archive.writestr(zipfile.ZipInfo(name, _DATE), bytes(data))
    return file.getvalue()


def load(file: Path | IO[bytes]) -> tuple[Callable[[Any], dict[str, jax.Array]], str]:
    """Returns the program of a file, from pictures uint8 `[n, size, size, 3]` to outputs, and its description."""
    with zipfile.ZipFile(file) as archive:
        program = export.deserialize(bytearray(archive.read(PROGRAM)))
        return jax.jit(program.call), archive.read(ABOUT).decode()


def runner(content: bytes) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Returns a function from pictures, uint8 `[n, size, size, 3]`, to the outputs of a file, run by JAX."""
    program, _ = load(io.BytesIO(content))
    return lambda pictures: jax.device_get(program(jax.device_put(pictures)))
