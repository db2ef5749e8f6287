"""int8 forms of ONNX files, by ONNX Runtime's own tools: static, per channel, in the QDQ format."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from facefeat_jax.exporting._onnx_graph import INPUT, temperature_of
from facefeat_jax.runs._about import POOLED

_BATCH = 16
# Of networks of convolutions and ReLU, whole blocks run in int8; of others the products alone, which are most of the
# work: SiLU, GELU, normalisations, attention and the sums beside them lose too much.
_OF_RELU, _OF_OTHERS = ("Conv", "Relu", "Add", "MaxPool"), ("Conv", "MatMul")


class _Pictures(quantization.CalibrationDataReader):
    """Pictures, a batch at a time, as ONNX Runtime asks for them."""

    def __init__(self, rows: np.ndarray):
        self._batches = iter(rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def set_temperatures(model: onnx.ModelProto, temperatures: Mapping[str, float]) -> None:
    """Changes the temperatures of a model's heads."""
    named = {temperature_of(task): value for task, value in temperatures.items()}
    for constant in model.graph.initializer:
        if constant.name in named:
            constant.CopyFrom(numpy_helper.from_array(np.array(named[constant.name], np.float32), constant.name))


def quantized(content: bytes, pictures: np.ndarray) -> onnx.ModelProto:
    """Returns a file's model with a trunk in int8: int8 weights, uint8 activations; the heads stay in float32.

    Weights have 7 bits: of 8, processors without VNNI instructions lose sums, and would answer otherwise.

    Args:
      content: the file, as `_onnx.to_bytes` made it; its description is left out.
      pictures: uint8 `[n, size, size, 3]`, from which the ranges of the activations are taken.
    """
    model = onnx.load_model_from_string(content)
    del model.metadata_props[:]
    add_pre_process_metadata(model)  # nothing is left to fold; without it, a line asks for that
    names = [node.name for node in model.graph.node]
    trunk = names[: names.index(POOLED)]
    kinds = {node.op_type for node in model.graph.node if node.name in trunk}
    options: dict[str, Any] = {
        "quant_format": quantization.QuantFormat.QDQ,
        "op_types_to_quantize": list(_OF_RELU if "Relu" in kinds else _OF_OTHERS),
        "nodes_to_exclude": names[len(trunk) :],
        "per_channel": True,
        "reduce_range": True,
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
        "extra_options": {"MatMulConstBOnly": True},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        quantization.quantize_static(model, file, _Pictures(pictures), **options)
        found = onnx.load(str(file))
    del found.metadata_props[:]
    return found
