"""What tests of several rooms make up, or look at, in the same way."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

import weights_conversion
from facefeat_jax.runs.run_folder import open_run

Model = TypeVar("Model", bound=nnx.Module)


def encoded(picture: Image.Image | np.ndarray, form: str = "PNG", **options) -> bytes:
    """Returns the bytes of a picture file."""
    file = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(file, form, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Returns a picture of noise."""
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


def filled(model: Model) -> Model:
    """Fills an abstract model with made-up weights: drawing them with jax compiles a program for every shape."""
    stream = np.random.RandomState(0)
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Param | nnx.BatchStat):
            node.set_value(jnp.asarray(values_for(node.shape, stream), node.dtype))
    return model


def values_for(shape: tuple[int, ...], stream: np.random.RandomState) -> np.ndarray:
    """Returns values that a layer may begin with: for a vector about 1, for a kernel such that outputs are about 1."""
    if len(shape) < 2:
        return stream.uniform(0.5, 1.0, shape)
    return stream.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))


def weights(run: Path) -> dict[str, np.ndarray]:
    """Returns the weights of a run's newest checkpoint."""
    return weights_conversion.to_torch(open_run(run).model)


def lowered(function, *args: Any, platform: str) -> str:
    """Returns the StableHLO of a function for a platform, which need not be this machine's."""
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def products(program: str) -> tuple[int, int]:
    """Returns how many convolutions and matrix products StableHLO holds."""
    return program.count("stablehlo.convolution("), program.count("stablehlo.dot_general ")
