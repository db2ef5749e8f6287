"""The tables from torchvision's names to the module tree, one per architecture.

A row names a layer on both sides and its kind; the kind says what the layer's tensors are called and how they are laid
out. `{...}` stands for a part of a name and is the same on both sides. Of rows that fit, the first counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from flax import nnx

from facefeat_jax.models import BatchNorm, ConvNeXt, EfficientNet, MultiTaskModel, ResNet, VisionTransformer
from facefeat_jax.models.efficientnet import EfficientNetV2Small
from facefeat_jax.models.trunk import Trunk
from facefeat_jax.system.errors import UserError
from weights_conversion._timm_names import from_timm


@dataclass(frozen=True)
class Layer:
    """One row: the layer's name in torch, its path in the module tree (dotted), and its kind."""

    torch: str
    module: str
    kind: str


RESNET = (
    Layer("conv1", "conv1", "conv"),
    # A deep stem's, as in timm.
    Layer("conv1.0", "conv1.conv1", "conv"),
    Layer("conv1.1", "conv1.bn1", "batch_norm"),
    Layer("conv1.3", "conv1.conv2", "conv"),
    Layer("conv1.4", "conv1.bn2", "batch_norm"),
    Layer("conv1.6", "conv1.conv3", "conv"),
    Layer("bn1", "bn1", "batch_norm"),
    Layer("layer{s}.{b}.conv{n}", "layer{s}.{b}.conv{n}", "conv"),
    Layer("layer{s}.{b}.bn{n}", "layer{s}.{b}.bn{n}", "batch_norm"),
    Layer("layer{s}.{b}.downsample.0", "layer{s}.{b}.downsample_conv", "conv"),
    Layer("layer{s}.{b}.downsample.1", "layer{s}.{b}.downsample_bn", "batch_norm"),
    Layer("fc", "fc", "linear"),
)
# With `avg_down` a shortcut begins with the means, so that its layers move up by one.
RESNET_OF_MEANS = tuple(
    replace(row, torch=row.torch.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"))
    for row in RESNET
)

# torchvision numbers the layers of a block: without an expansion, as in the first stage, all move up by one. The
# stages and the layers around them are numbered through, too.
EFFICIENTNET = (
    Layer("features.0.0", "stem.conv", "conv"),
    Layer("features.0.1", "stem.bn", "batch_norm"),
    Layer("features.1.{b}.block.0.0", "stage1.{b}.depthwise.conv", "conv"),
    Layer("features.1.{b}.block.0.1", "stage1.{b}.depthwise.bn", "batch_norm"),
    Layer("features.1.{b}.block.1.fc{n}", "stage1.{b}.squeeze.fc{n}", "conv"),
    Layer("features.1.{b}.block.2.0", "stage1.{b}.project.conv", "conv"),
    Layer("features.1.{b}.block.2.1", "stage1.{b}.project.bn", "batch_norm"),
    Layer("features.{s}.{b}.block.0.0", "stage{s}.{b}.expand.conv", "conv"),
    Layer("features.{s}.{b}.block.0.1", "stage{s}.{b}.expand.bn", "batch_norm"),
    Layer("features.{s}.{b}.block.1.0", "stage{s}.{b}.depthwise.conv", "conv"),
    Layer("features.{s}.{b}.block.1.1", "stage{s}.{b}.depthwise.bn", "batch_norm"),
    Layer("features.{s}.{b}.block.2.fc{n}", "stage{s}.{b}.squeeze.fc{n}", "conv"),
    Layer("features.{s}.{b}.block.3.0", "stage{s}.{b}.project.conv", "conv"),
    Layer("features.{s}.{b}.block.3.1", "stage{s}.{b}.project.bn", "batch_norm"),
    # V2's fused blocks.
    Layer("features.{s}.{b}.block.0.0", "stage{s}.{b}.fused.conv", "conv"),
    Layer("features.{s}.{b}.block.0.1", "stage{s}.{b}.fused.bn", "batch_norm"),
    Layer("features.{s}.{b}.block.1.0", "stage{s}.{b}.narrow.conv", "conv"),
    Layer("features.{s}.{b}.block.1.1", "stage{s}.{b}.narrow.bn", "batch_norm"),
    Layer("features.8.0", "head.conv", "conv"),
    Layer("features.8.1", "head.bn", "batch_norm"),
    Layer("classifier.1", "fc", "linear"),
)
EFFICIENTNET_OF_SIX_STAGES = tuple(
    replace(row, torch=row.torch.replace("features.8.", "features.7.")) for row in EFFICIENTNET
)

VIT = (
    Layer("conv_proj", "stem.projection", "conv"),
    Layer("", "stem", "class_token"),
    Layer("encoder", "stem", "positions"),
    Layer("encoder.layers.encoder_layer_{b}.ln_{n}", "block{b}.norm{n}", "layer_norm"),
    Layer("encoder.layers.encoder_layer_{b}.self_attention", "block{b}.attention.qkv", "in_proj"),
    Layer("encoder.layers.encoder_layer_{b}.self_attention.out_proj", "block{b}.attention.out", "linear"),
    Layer("encoder.layers.encoder_layer_{b}.mlp.0", "block{b}.mlp.hidden", "linear"),
    Layer("encoder.layers.encoder_layer_{b}.mlp.3", "block{b}.mlp.output", "linear"),
    Layer("encoder.ln", "norm", "layer_norm"),
    Layer("heads.head", "fc", "linear"),
)
# The perceptrons of the files that torchvision published before it numbered their layers.
RENAMED = ((".mlp.linear_1.", ".mlp.0."), (".mlp.linear_2.", ".mlp.3."))

# Stages and what is between them are numbered through.
CONVNEXT = (
    Layer("features.0.0", "stem.conv", "conv"),
    Layer("features.0.1", "stem.norm", "layer_norm"),
    *(
        row
        for number in range(1, 5)
        for row in (
            Layer(f"features.{2 * number - 2}.0", f"downsample{number}.norm", "layer_norm"),
            Layer(f"features.{2 * number - 2}.1", f"downsample{number}.conv", "conv"),
            Layer(f"features.{2 * number - 1}.{{b}}.block.0", f"stage{number}.{{b}}.depthwise", "conv"),
            Layer(f"features.{2 * number - 1}.{{b}}.block.2", f"stage{number}.{{b}}.norm", "layer_norm"),
            Layer(f"features.{2 * number - 1}.{{b}}.block.3", f"stage{number}.{{b}}.hidden", "linear"),
            Layer(f"features.{2 * number - 1}.{{b}}.block.5", f"stage{number}.{{b}}.output", "linear"),
            Layer(f"features.{2 * number - 1}.{{b}}", f"stage{number}.{{b}}", "layer_scale"),
        )
    ),
    Layer("classifier.0", "norm", "layer_norm"),
    Layer("classifier.2", "fc", "linear"),
)

# What the classifier is called in the module tree, in every table; weights without it fit a trunk without it.
CLASSIFIER = "fc"

# The notebook's own model: torchvision's trunk under `backbone`, and nn.Sequential heads (index 1 is the ReLU).
HEADS = (
    Layer("{task}_head.0", "heads.{task}.hidden", "linear"),
    Layer("{task}_head.2", "heads.{task}.output", "linear"),
)
BACKBONE = ("backbone.", "trunk.")

TRUNKS: dict[type[Trunk], tuple[Layer, ...]] = {
    ResNet: RESNET,
    EfficientNet: EFFICIENTNET,
    EfficientNetV2Small: EFFICIENTNET_OF_SIX_STAGES,
    VisionTransformer: VIT,
    ConvNeXt: CONVNEXT,
}


@dataclass(frozen=True)
class Layout:
    """The names of a layer's tensor on both sides, and how its axes go to Flax's order and back."""

    torch: str
    module: str
    to_flax: tuple[int, ...] | None = None

    def flax_array(self, array: np.ndarray) -> np.ndarray:
        """Reorders a torch tensor's axes."""
        return array if self.to_flax is None else array.transpose(self.to_flax)

    def torch_array(self, array: np.ndarray) -> np.ndarray:
        """Reorders a Flax tensor's axes."""
        return array if self.to_flax is None else array.transpose(np.argsort(self.to_flax))

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Reorders the lengths of a Flax tensor's axes."""
        return shape if self.to_flax is None else tuple(shape[axis] for axis in np.argsort(self.to_flax))


KINDS: dict[str, tuple[Layout, ...]] = {
    # OIHW to HWIO
    "conv": (Layout("weight", "kernel", (2, 3, 1, 0)), Layout("bias", "bias")),
    # [out, in] to [in, out]
    "linear": (Layout("weight", "kernel", (1, 0)), Layout("bias", "bias")),
    # queries, keys and values below one another
    "in_proj": (Layout("in_proj_weight", "kernel", (1, 0)), Layout("in_proj_bias", "bias")),
    "layer_scale": (Layout("layer_scale", "layer_scale"),),
    "class_token": (Layout("class_token", "class_token"),),
    "positions": (Layout("pos_embedding", "positions"),),
    "layer_norm": (Layout("weight", "scale"), Layout("bias", "bias")),
    "batch_norm": (
        Layout("weight", "scale"),
        Layout("bias", "bias"),
        Layout("running_mean", "mean"),
        Layout("running_var", "var"),
        Layout("num_batches_tracked", "num_batches_tracked"),
    ),
}


# What a layer is that no table has.
_KIND_OF: dict[type[nnx.Module], str] = {
    nnx.Conv: "conv",
    nnx.Linear: "linear",
    nnx.LayerNorm: "layer_norm",
    nnx.GroupNorm: "layer_norm",
    BatchNorm: "batch_norm",
}


class UnknownLayerError(UserError):
    """A model has a layer that PyTorch has no form of."""


def table(model: MultiTaskModel | Trunk) -> tuple[Layer, ...]:
    """Returns the rows for a model: those of its trunk, behind their prefixes, and of its heads.

    What the table of its family has not (all of a trunk without a table, what a subclass adds, another classifier or
    head) has the name of its own module in torch too, behind the family's name of the classifier.

    Raises:
      UnknownLayerError: it has a layer that no table has, and whose kind is not known.
    """
    if isinstance(model, MultiTaskModel):
        torch_prefix, module_prefix = BACKBONE
        trunk = (
            Layer((torch_prefix + row.torch).rstrip("."), module_prefix + row.module, row.kind)
            for row in table(model.trunk)
        )
        rows = (*trunk, *HEADS)
    else:
        rows = next((TRUNKS[kind] for kind in type(model).__mro__ if kind in TRUNKS), ())
        rows = RESNET_OF_MEANS if rows is RESNET and getattr(model, "avg_down", False) else rows
    return (*rows, *_own_names(model, rows))


def _own_names(model: MultiTaskModel | Trunk, rows: tuple[Layer, ...]) -> Iterator[Layer]:
    """Yields a row for each layer that `rows` have not, a trunk's in the order of its stages."""
    tables = [(_pattern(row.module), {layout.module for layout in KINDS[row.kind]}) for row in rows]
    renamed = [(row.module, row.torch) for row in rows if row.module == CLASSIFIER]
    renamed += [(r"heads\.(\w+)", r"\1_head")] if isinstance(model, MultiTaskModel) else []
    nodes = [(".".join(map(str, path)), node) for path, node in nnx.iter_graph(model)]
    if isinstance(model, Trunk):
        first = [name for stage in model.STAGES.values() for name in stage] + [CLASSIFIER]
        place = {name: index for index, name in enumerate(first)}
        nodes.sort(key=lambda one: place.get(one[0].partition(".")[0], len(first)))
    sequences = {where for where, node in nodes if isinstance(node, nnx.Sequential)}
    for where, node in nodes:
        own = _tensors_of(node)
        if not own or own <= {one for pattern, layouts in tables if pattern.fullmatch(where) for one in layouts}:
            continue
        kind = next((kind for layer, kind in _KIND_OF.items() if isinstance(node, layer)), None)
        if kind is None or not own <= {layout.module for layout in KINDS[kind]}:
            raise UnknownLayerError(
                f"{type(model).__name__} has tensors that PyTorch's names are not known for: its layer "
                f"{where or 'of its own'} is a {type(node).__name__}. Use convolutions, linear layers, LayerNorm, "
                "GroupNorm and BatchNorm (an adapter is merged into the weights first), or add a table to "
                "weights_conversion/_names.py"
            )
        name = where
        for sequence in sorted(sequences, reverse=True):  # torch's have no name for their list
            name = (
                name.replace(f"{sequence}.layers.", f"{sequence}.") if name.startswith(f"{sequence}.layers.") else name
            )
        for module, torch in renamed:
            name = re.sub(rf"^{module}(?=\.|$)", torch, name)
        yield Layer(name, where, kind)


def _tensors_of(node: object) -> set[str]:
    """Returns the names of the parameters and statistics that a module has itself, not in a module of its own."""
    if not isinstance(node, nnx.Module):
        return set()
    return {name for name, value in vars(node).items() if isinstance(value, nnx.Param | nnx.BatchStat)}


def classifier_prefix(model: MultiTaskModel | Trunk) -> str:
    """Returns what torch's names of the trunk's classifier begin with."""
    rows = table(model)
    torch_prefix, module_prefix = BACKBONE if isinstance(model, MultiTaskModel) else ("", "")
    named = (row.torch for row in rows if row.module == module_prefix + CLASSIFIER)
    return next(named, torch_prefix + CLASSIFIER) + "."


def canonical(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors under the names that torchvision gives them now; its older files and timm's have others."""

    def renamed(name: str) -> str:
        for old, new in RENAMED:
            name = name.replace(old, new)
        return name

    return {renamed(name): tensor for name, tensor in from_timm(state_dict).items()}


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    escaped = [f"(?P<{part}>[^.]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)]
    return re.compile("".join(escaped))


def translator(rows: tuple[Layer, ...]) -> Callable[[str], tuple[str, Layout]]:
    """Returns a function from a tensor's path in the module tree to its name in torch and its layout.

    The function raises `KeyError` for a path that no row covers.
    """
    patterns = [
        (re.compile(_pattern(row.module).pattern + re.escape("." + layout.module)), row, layout)
        for row in rows
        for layout in KINDS[row.kind]
    ]

    def translate(path: str) -> tuple[str, Layout]:
        for pattern, row, layout in patterns:
            if match := pattern.fullmatch(path):
                # A tensor of the network itself has no layer before its name.
                return f"{row.torch.format(**match.groupdict())}.{layout.torch}".removeprefix("."), layout
        raise KeyError(path)

    return translate
