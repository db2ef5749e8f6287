"""Names of choices that several modules offer."""

from __future__ import annotations

from typing import Literal

DType = Literal["float32", "bfloat16", "float64"]

# How pictures are resized; the weights decide.
Interpolation = Literal["bilinear", "bicubic"]

# How files become RGB: see `facefeat_jax.data.images.decode`.
DecodePolicy = Literal["as_notebook", "upright"]
