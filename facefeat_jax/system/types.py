"""Names of choices that several modules offer."""

from __future__ import annotations

from typing import Literal

DType = Literal["float32", "bfloat16", "float64"]

# Of float32 products; `default` is what JAX takes on the device.
MatmulPrecision = Literal["default", "tensorfloat32", "highest"]

# What of a person a head looks at: see `facefeat_jax.prediction.crops`.
FrameName = Literal["face", "head", "upper_body", "whole"]

# Side in pixels: one batch of larger pictures would fill the memory of most machines.
MAX_IMAGE_SIZE = 4096

# How pictures are resized; the weights decide.
Interpolation = Literal["bilinear", "bicubic"]

# How files become RGB: see `facefeat_jax.data.images.decode`.
DecodePolicy = Literal["as_notebook", "upright"]
