"""The formats of exported files that need none of this program to be run. Imports no JAX: commands look here first."""

from __future__ import annotations

from typing import Literal

Portable = Literal["onnx", "stablehlo"]
SUFFIXES: dict[Portable, str] = {"onnx": ".onnx", "stablehlo": ".stablehlo"}
