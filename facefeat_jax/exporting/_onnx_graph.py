"""The graph of a model in ONNX's operations, built from the structure of its trunk and its torch-named tensors.

BatchNorm is folded into the convolution before it. Paddings are written out: runtimes differ in what `auto_pad` means.
The graph takes uint8 pictures as files hold them, NHWC, and normalises them itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from flax import nnx
from onnx import TensorProto, helper, numpy_helper

from facefeat_jax.models import BatchNorm, ConvNeXt, EfficientNet, MultiTaskModel, ResNet, VisionTransformer
from facefeat_jax.models._mbconv import FusedMBConv
from facefeat_jax.models._positions import bicubic
from facefeat_jax.models.resnet import BasicBlock, Bottleneck, DeepStem
from facefeat_jax.runs._about import POOLED
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError
from weights_conversion import to_torch, torch_names

OPSET = 17
_IR_VERSION = 8  # of that opset's time; runtimes refuse newer ones than they know
INPUT = "images"


@dataclass(frozen=True)
class _At:
    """A module and its path in the model."""

    module: Any
    path: str = ""

    def __getattr__(self, name: str) -> _At:
        return _At(getattr(self.module, name), f"{self.path}.{name}".lstrip("."))

    def __getitem__(self, index: int | str) -> _At:
        return _At(self.module[index], f"{self.path}.{index}")

    def each(self) -> list[_At]:
        """Returns the entries of a list of modules."""
        return [self[index] for index in range(len(self.module))]


class _Graph:
    """Nodes and constants, as they are added; a value is the name of what a node gives."""

    def __init__(self, model: MultiTaskModel):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._tensors = to_torch(model)
        self._names = torch_names(model)

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns that."""
        return self.add_named(f"{operation}_{len(self.nodes)}", operation, *inputs, **attributes)

    def add_named(self, name: str, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node whose output has that name."""
        self.nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Returns a constant; one of the same name is the same."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def torch_name(self, at: _At, variable: str) -> str:
        """Returns torch's name of a variable of a module."""
        return self._names[f"{at.path}.{variable}"]

    def tensor(self, at: _At, variable: str) -> np.ndarray:
        """Returns a variable's values in torch's axes, float64."""
        return self._tensors[self.torch_name(at, variable)].astype(np.float64)

    def conv(self, x: str, at: _At, norm: _At | None = None) -> str:
        """Adds a convolution, with the batch normalisation that follows it."""
        conv: nnx.Conv = at.module
        name, kernel = self.torch_name(at, "kernel"), self.tensor(at, "kernel")
        bias = self.tensor(at, "bias") if conv.bias is not None else np.zeros(len(kernel))
        if norm is not None:
            module: BatchNorm = norm.module
            if not isinstance(module, BatchNorm):
                raise UserError(
                    f"the trunk has a {type(module).__name__} after a convolution, which has no ONNX form here; export "
                    "it with --to stablehlo"
                )
            multiplier = self.tensor(norm, "scale") / np.sqrt(self.tensor(norm, "var") + module.epsilon)
            bias = (bias - self.tensor(norm, "mean")) * multiplier + self.tensor(norm, "bias")
            kernel = kernel * multiplier[:, None, None, None]
        pads: Any = [(0, 0)] * 2 if isinstance(conv.padding, str) else conv.padding  # as `_convolution.conv` sets them
        return self.add(
            "Conv",
            x,
            self.constant(name, kernel),
            self.constant(name.removesuffix("weight") + "bias", bias),
            kernel_shape=kernel.shape[2:],
            strides=conv.strides,
            dilations=np.broadcast_to(conv.kernel_dilation or 1, 2).tolist(),
            pads=[before for before, _ in pads] + [after for _, after in pads],
            group=conv.feature_group_count,
        )

    def linear(self, x: str, at: _At) -> str:
        """Adds a linear layer on rows `[batch, features]`."""
        weight = self.constant(self.torch_name(at, "kernel"), self.tensor(at, "kernel"))
        bias = self.constant(self.torch_name(at, "bias"), self.tensor(at, "bias"))
        return self.add("Gemm", x, weight, bias, transB=1)

    def token_linear(self, x: str, at: _At) -> str:
        """Adds a linear layer on tokens `[batch, tokens, features]`."""
        weight = self.constant(self.torch_name(at, "kernel"), self.tensor(at, "kernel").T)
        bias = self.constant(self.torch_name(at, "bias"), self.tensor(at, "bias"))
        return self.add("Add", self.add("MatMul", x, weight), bias)

    def layer_norm(self, x: str, at: _At) -> str:
        """Adds a layer normalisation over the last axis."""
        scale = self.constant(self.torch_name(at, "scale"), self.tensor(at, "scale"))
        bias = self.constant(self.torch_name(at, "bias"), self.tensor(at, "bias"))
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=at.module.epsilon)

    def silu(self, x: str) -> str:
        """Adds x * sigmoid(x)."""
        return self.add("Mul", x, self.add("Sigmoid", x))

    def gelu(self, x: str) -> str:
        """Adds the exact GELU, which has no operation of its own before opset 20."""
        root, one, half = (self.constant(n, v) for n, v in (("sqrt2", math.sqrt(2)), ("one", 1.0), ("half", 0.5)))
        share = self.add("Add", self.add("Erf", self.add("Div", x, root)), one)
        return self.add("Mul", self.add("Mul", x, share), half)

    def channels_last(self, x: str) -> str:
        """Adds the transposition of maps to `[batch, height, width, channels]`."""
        return self.add("Transpose", x, perm=[0, 2, 3, 1])

    def channels_first(self, x: str) -> str:
        """Adds the transposition back."""
        return self.add("Transpose", x, perm=[0, 3, 1, 2])

    def reshape(self, x: str, *shape: int) -> str:
        """Reshapes; 0 keeps an axis."""
        return self.add("Reshape", x, self.constant("shape_" + "_".join(map(str, shape)), shape, np.int64))


def build(model: MultiTaskModel, spec: ModelSpec, temperatures: Mapping[str, float]) -> onnx.ModelProto:
    """Returns a model as ONNX, in float32.

    It takes `images`, uint8 `[batch, size, size, 3]` with a free batch, and gives for each head `{task}_probabilities`
    `[batch, classes]`, calibrated, and `{task}_logits` `[batch, outputs]`, as the model gives them; also the trunk's
    pooled `features` `[batch, features]`.

    Args:
      model: the model.
      spec: what it is.
      temperatures: by head; those that are missing are 1.

    Raises:
      UserError: its trunk, or one of its normalisations, is of a kind that has no ONNX form here.
    """
    graph, at, size = _Graph(model), _At(model), spec.image_size
    trunk = next((form for kind, form in _TRUNKS.items() if isinstance(model.trunk, kind)), None)
    if trunk is None:
        raise UserError(
            f"the trunk {spec.trunk} is a {type(model.trunk).__name__}, which has no ONNX form here; export it with "
            "--to stablehlo"
        )
    mean, std = np.array(spec.mean), np.array(spec.std)
    x = graph.add("Cast", graph.add("Transpose", INPUT, perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = graph.add("Mul", x, graph.constant("normalize.multiplier", (1 / (255 * std))[:, None, None]))
    x = graph.add("Add", x, graph.constant("normalize.offset", (-mean / std)[:, None, None]))
    features = graph.add_named(POOLED, "Identity", trunk(graph, at.trunk, x, size))
    width = model.trunk.num_features
    outputs = [helper.make_tensor_value_info(POOLED, TensorProto.FLOAT, ["batch", width])]
    for task in spec.tasks:
        head = at.heads[task.name]
        hidden = graph.add("Relu", graph.linear(features, head.hidden))
        logits = graph.add_named(f"{task.name}_logits", "Identity", graph.linear(hidden, head.output))
        scaled = graph.add("Div", logits, graph.constant(temperature_of(task.name), temperatures.get(task.name, 1.0)))
        probabilities = f"{task.name}_probabilities"
        if task.is_binary:
            sides = graph.add("Sigmoid", graph.add("Neg", scaled)), graph.add("Sigmoid", scaled)
            graph.add_named(probabilities, "Concat", *sides, axis=1)
        else:
            graph.add_named(probabilities, "Softmax", scaled, axis=1)
        for name, width in ((probabilities, len(task.classes)), (logits, task.num_outputs)):
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", size, size, 3])
    made = helper.make_graph(graph.nodes, spec.trunk, [images], outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="facefeat_jax")


def temperature_of(task: str) -> str:
    """Returns the name of the constant that is a head's temperature."""
    return f"{task}.temperature"


def _resnet(graph: _Graph, trunk: _At, x: str, size: int) -> str:
    first = trunk.conv1
    if isinstance(first.module, DeepStem):
        x = graph.add("Relu", graph.conv(x, first.conv1, first.bn1))
        x = graph.add("Relu", graph.conv(x, first.conv2, first.bn2))
        first = first.conv3
    x = graph.add("Relu", graph.conv(x, first, trunk.bn1))
    if trunk.module.has_pool:
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        for block in stage.each():
            x = _residual(graph, block, x)
    return graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)


def _residual(graph: _Graph, block: _At, x: str) -> str:
    module: BasicBlock | Bottleneck = block.module
    y = graph.add("Relu", graph.conv(x, block.conv1, block.bn1))
    y = graph.conv(y, block.conv2, block.bn2)
    if isinstance(module, Bottleneck):
        y = graph.conv(graph.add("Relu", y), block.conv3, block.bn3)
    if module.pool:
        counted = int(module.pool == 1)  # as in `average_pool`
        sizes = {"kernel_shape": [2, 2], "strides": [module.pool] * 2, "pads": [0, 0, 1, 1]}
        x = graph.add("AveragePool", x, **sizes, count_include_pad=counted)
    if module.downsample_conv is not None:
        x = graph.conv(x, block.downsample_conv, block.downsample_bn)
    return graph.add("Relu", graph.add("Add", y, x))


def _efficientnet(graph: _Graph, trunk: _At, x: str, size: int) -> str:
    x = _conv_norm(graph, trunk.stem, x)
    for name in trunk.module.STAGES:
        for block in getattr(trunk, name).each() if name.startswith("stage") else ():
            y = (_fused if isinstance(block.module, FusedMBConv) else _mbconv)(graph, block, x)
            x = graph.add("Add", x, y) if block.module.is_residual else y
    return graph.add("Flatten", graph.add("GlobalAveragePool", _conv_norm(graph, trunk.head, x)), axis=1)


def _mbconv(graph: _Graph, block: _At, x: str) -> str:
    y = x if block.module.expand is None else _conv_norm(graph, block.expand, x)
    y = _conv_norm(graph, block.depthwise, y)
    weights = graph.silu(graph.conv(graph.add("GlobalAveragePool", y), block.squeeze.fc1))
    y = graph.add("Mul", y, graph.add("Sigmoid", graph.conv(weights, block.squeeze.fc2)))
    return _conv_norm(graph, block.project, y)


def _fused(graph: _Graph, block: _At, x: str) -> str:
    y = _conv_norm(graph, block.fused, x)
    return y if block.module.narrow is None else _conv_norm(graph, block.narrow, y)


def _conv_norm(graph: _Graph, layer: _At, x: str) -> str:
    y = graph.conv(x, layer.conv, layer.bn)
    return graph.silu(y) if layer.module.activation else y


def _vit(graph: _Graph, trunk: _At, x: str, size: int) -> str:
    stem, grid, beyond = trunk.stem, -(-size // trunk.module.patch), -size % trunk.module.patch
    if beyond:  # only a trunk with `pad` takes such pictures
        x = graph.add("Pad", x, graph.constant("beyond", [0] * 6 + [beyond] * 2, np.int64))
    positions = graph.tensor(stem, "positions")
    if grid != stem.module.grid:
        matrix = bicubic(stem.module.grid, grid)
        before = positions[0, 1:].reshape(stem.module.grid, stem.module.grid, -1)
        resized = np.einsum("yi,xj,ijc->yxc", matrix, matrix, before).reshape(1, grid * grid, -1)
        positions = np.concatenate([positions[:, :1], resized], axis=1)
    # The class token is a row of the constant that is added: no shape has to be computed as the graph runs.
    positions[:, :1] += graph.tensor(stem, "class_token")
    width = positions.shape[2]
    patches = graph.reshape(graph.conv(x, stem.projection), 0, width, grid * grid)
    tokens = graph.add("Transpose", patches, perm=[0, 2, 1])
    tokens = graph.add("Pad", tokens, graph.constant("first_token", [0, 1, 0, 0, 0, 0], np.int64))
    x = graph.add("Add", tokens, graph.constant(graph.torch_name(stem, "positions"), positions))
    for number in range(trunk.module.depth):
        block = getattr(trunk, f"block{number}")
        attended = _attention(graph, block.attention, graph.layer_norm(x, block.norm1), grid * grid + 1, width)
        x = graph.add("Add", x, attended)
        hidden = graph.gelu(graph.token_linear(graph.layer_norm(x, block.norm2), block.mlp.hidden))
        x = graph.add("Add", x, graph.token_linear(hidden, block.mlp.output))
    first = graph.constant("class_token_index", 0, np.int64)
    return graph.add("Gather", graph.layer_norm(x, trunk.norm), first, axis=1)


def _attention(graph: _Graph, at: _At, x: str, length: int, width: int) -> str:
    heads = at.module.heads
    qkv = graph.reshape(graph.token_linear(x, at.qkv), 0, length, 3, heads, width // heads)
    qkv = graph.add("Transpose", qkv, perm=[2, 0, 3, 1, 4])  # three of [batch, heads, tokens, width of a head]
    query, key, value = (
        graph.add("Gather", qkv, graph.constant(f"index_{number}", number, np.int64), axis=0) for number in range(3)
    )
    root = graph.constant(f"root_{width // heads}", math.sqrt(width // heads))
    scores = graph.add("MatMul", graph.add("Div", query, root), graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    return graph.token_linear(graph.reshape(graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), 0, length, width), at.out)


def _convnext(graph: _Graph, trunk: _At, x: str, size: int) -> str:
    x = graph.channels_first(graph.layer_norm(graph.channels_last(graph.conv(x, trunk.stem.conv)), trunk.stem.norm))
    for number in (1, 2, 3, 4):
        if number > 1:
            between = getattr(trunk, f"downsample{number}")
            x = graph.channels_first(graph.layer_norm(graph.channels_last(x), between.norm))
            x = graph.conv(x, between.conv)
        for block in getattr(trunk, f"stage{number}").each():
            y = graph.layer_norm(graph.channels_last(graph.conv(x, block.depthwise)), block.norm)
            y = graph.token_linear(graph.gelu(graph.token_linear(y, block.hidden)), block.output)
            scale = graph.tensor(block, "layer_scale").reshape(-1)
            y = graph.add("Mul", y, graph.constant(graph.torch_name(block, "layer_scale"), scale))
            x = graph.add("Add", x, graph.channels_first(y))
    return graph.layer_norm(graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1), trunk.norm)


_TRUNKS: dict[type, Callable[[_Graph, _At, str, int], str]] = {
    ResNet: _resnet,
    ConvNeXt: _convnext,
    EfficientNet: _efficientnet,
    VisionTransformer: _vit,
}
