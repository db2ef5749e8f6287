"""How near a trunk is to torchvision's: every stage, gradients, training steps. Needs torch and torchvision.

    python -m weights_conversion verify resnet50 [weights.pth]

torch's results in float64 are what everything is held against: JAX's in float64, which must be equal but for rounding,
and those of both in float32 and bfloat16, to see that JAX loses no more than torch itself does.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.published import named_weights
from facefeat_jax.models.registry import Architecture, get_architecture
from facefeat_jax.models.trunk import Trunk
from facefeat_jax.system.errors import UserError
from weights_conversion import _names as names
from weights_conversion import download, files
from weights_conversion._with_torch import import_torchvision, require_torch
from weights_conversion.convert import position_size, recognise, to_flax, to_torch

Arrays = dict[str, np.ndarray]
TOLERANCE = 1e-9
STEPS = 3
LEARNING_RATE = 1e-4
# Adam divides a gradient by its own size, so that with its usual epsilon, 1e-8, one of nothing but rounding moves a
# weight as far as any other. The steps are compared with a larger one, on both sides.
EPSILON = 1e-6
_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var")


@dataclass
class Measured:
    """What one side gave, in one type.

    Attributes:
      kinds: per kind of number, arrays by torch's names, maps as NHWC: `evaluation` and `training` hold the map of each
        stage, `pooled` and `logits`; `statistics` what one pass in training mode leaves; `gradients`, and `weights`,
        `moved statistics` after three steps of Adam, are there where asked for.
    """

    kinds: dict[str, Arrays] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table: the largest difference of some numbers from torch's in float64, relative to the largest.

    Attributes:
      what: the numbers.
      differences: by column (`JAX float64`, `torch float32`, ...); a column that did not measure them has none.
    """

    what: str
    differences: dict[str, float]


def verify(
    name: str,
    weights: str | Path | None = None,
    *,
    image_size: int | None = None,
    batch_size: int = 8,
    training: bool = True,
    dtypes: Sequence[str] = ("float64", "float32", "bfloat16"),
    seed: int = 0,
) -> list[Row]:
    """Compares a trunk with torchvision's model of that name.

    Args:
      name: one of `list_models()`.
      weights: a torchvision file (.pth or .safetensors), or the name of published weights, which are downloaded. None:
        torch's own random start, with every tensor moved away from its default.
      image_size: side of the made-up pictures; the default is 128 pixels. A Vision Transformer with weights takes the
        size that its positions are for.
      batch_size: how many of them.
      training: whether gradients and training steps are compared too; they take several times the memory.
      dtypes: to compute in; float64 comes first.
      seed: seed of weights and pictures.

    Returns:
      The rows of the table. Gradients and steps are not compared in bfloat16.

    Raises:
      UserError: no such model, weights that don't fit, or no torch.
    """
    architecture = get_architecture(name)
    require_torch()
    tensors = _tensors(architecture, weights, seed, image_size)
    # torchvision's Vision Transformers take no other pictures than those that their positions are for.
    size = (position_size(tensors) if architecture.fixed_size else image_size) or 128
    stream = np.random.RandomState(seed + 1)
    images = stream.standard_normal((batch_size, size, size, 3))
    options = _options(architecture, tensors)
    labels = stream.randint(0, options["num_classes"], batch_size)
    models = import_torchvision().models

    def measured(side: str, dtype: str) -> Measured:
        gc.collect()
        run, build = (
            (jax_side, partial(architecture.build, **options))
            if side == "JAX"
            else (torch_side, partial(getattr(models, name), weights=None, **options))
        )
        return run(build, tensors, images, labels, dtype=dtype, training=training and dtype != "bfloat16")

    reference = measured("torch", "float64")
    rows: dict[str, Row] = {}
    for dtype in dtypes:
        for side in ("JAX", "torch"):
            if (side, dtype) != ("torch", "float64"):
                # Of each side only the differences are kept: a large model's numbers are gigabytes.
                for what, difference in _differences(reference, measured(side, dtype)).items():
                    rows.setdefault(what, Row(what, {})).differences[f"{side} {dtype}"] = difference
    return list(rows.values())


# -------------------------------------------------------------------------------------------------------- the two sides


def jax_side(
    build: Callable[..., Trunk], tensors: Arrays, images: np.ndarray, labels: np.ndarray, *, dtype: str, training: bool
) -> Measured:
    """Runs our trunk.

    Args:
      build: makes the trunk, with a classifier, given `dtype`, `param_dtype` and `rngs`.
      tensors: a state dict with torchvision's names.
      images: `[batch, height, width, 3]`.
      labels: `[batch]`, class numbers.
      dtype: dtype of weights, inputs and computation.
      training: whether gradients are taken and steps made.
    """
    with _precision(dtype):
        trunk = to_flax(tensors, abstract(build, dtype=dtype, param_dtype=dtype))
        trunk.set_attributes(rate=0.0, raise_if_not_found=False)  # dropout and stochastic depth
        pixels = jnp.asarray(images, dtype)

        def forward(trunk: Trunk, pixels: jax.Array) -> dict[str, jax.Array]:
            maps = trunk.stages(pixels)
            pooled = trunk.pooled(maps[list(trunk.STAGES)[-1]])
            return {**maps, "pooled": pooled, "logits": trunk.classify(pooled)}

        def loss_of(params: nnx.State, rest: nnx.State) -> tuple[jax.Array, Any]:
            model = nnx.merge(graphdef, params, rest, copy=True)
            outputs = forward(model, pixels)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], jnp.asarray(labels))
            return losses.mean(), (outputs, nnx.state(model, nnx.Not(nnx.Param)))

        def tensors_of(params: nnx.State, rest: nnx.State) -> Arrays:
            return to_torch(nnx.merge(graphdef, params, rest, copy=True))

        trunk.eval()
        evaluation = nnx.jit(forward)(trunk, pixels)
        measured = Measured({"evaluation": _host(evaluation)})
        trunk.train()
        graphdef, *states = nnx.split(trunk, nnx.Param, ...)
        params, rest = states
        del trunk, states  # from here on, one copy of what may be gigabytes
        if not training:
            _, (outputs, moved) = jax.jit(loss_of)(params, rest)
        else:
            step = jax.jit(jax.grad(loss_of, has_aux=True))
            gradients, (outputs, moved) = step(params, rest)
            gradient_tensors = tensors_of(gradients, moved)
        measured.kinds["training"] = _host(outputs)
        measured.kinds["statistics"] = _ending(tensors_of(params, moved), statistics=True)
        if training:
            measured.kinds["gradients"] = _ending(gradient_tensors, statistics=False)
            adam = optax.adam(LEARNING_RATE, eps=EPSILON)
            state = adam.init(params)
            for number in range(STEPS):
                if number:
                    gradients, (_, moved) = step(params, rest)
                updates, state = adam.update(gradients, state, params)
                params, rest = optax.apply_updates(params, updates), moved
            after = tensors_of(params, rest)
            measured.kinds["weights"] = _ending(after, statistics=False)
            measured.kinds["moved statistics"] = _ending(after, statistics=True)
        return measured


def torch_side(
    build: Callable[[], Any], tensors: Arrays, images: np.ndarray, labels: np.ndarray, *, dtype: str, training: bool
) -> Measured:
    """Runs torchvision's model, which `build` makes; the other arguments and the result are those of `jax_side`."""
    import torch

    model = build().to(getattr(torch, dtype))  # first, or loading would round to float32
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}, strict=True)
    for module in model.modules():
        if hasattr(module, "p") and isinstance(module.p, float):  # Dropout and StochasticDepth
            module.p = 0.0
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(getattr(torch, dtype))
    target = torch.from_numpy(labels)
    maps: Arrays = {}
    stages = torch_stages(model)
    for stage, path in stages.items():
        model.get_submodule(path).register_forward_hook(
            lambda module, inputs, outputs, stage=stage: maps.update({stage: _torch_map(outputs)})
        )
    if hasattr(model, "avgpool"):
        model.avgpool.register_forward_hook(lambda module, inputs, outputs: maps.update(pooled=_torch_map(outputs)))
    last = list(stages)[-1]

    def forward() -> tuple[Any, Arrays]:
        maps.clear()
        logits = model(pixels)
        pooled = maps.pop("pooled").reshape(len(images), -1) if "pooled" in maps else maps[last][:, 0]
        return logits, {**maps, "pooled": pooled, "logits": _torch_array(logits)}

    def state() -> Arrays:
        return {name: _torch_array(tensor) for name, tensor in model.state_dict().items()}

    measured = Measured()
    model.eval()
    with torch.no_grad():
        measured.kinds["evaluation"] = forward()[1]
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, eps=EPSILON)
    for number in range(STEPS if training else 1):
        with torch.set_grad_enabled(training):
            logits, outputs = forward()
        if number == 0:
            measured.kinds["training"] = outputs
            measured.kinds["statistics"] = _ending(state(), statistics=True)
        if training:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, target).backward()
            if number == 0:
                measured.kinds["gradients"] = {n: _torch_array(p.grad) for n, p in model.named_parameters()}
            optimizer.step()
    if training:
        after = state()
        measured.kinds["weights"] = _ending(after, statistics=False)
        measured.kinds["moved statistics"] = _ending(after, statistics=True)
    return measured


# ------------------------------------------------------------------------------------------------------------ the table


def _differences(reference: Measured, measured: Measured) -> dict[str, float]:
    """Returns the largest difference of each kind of number; of maps, of each stage."""
    differences: dict[str, float] = {}
    for kind, arrays in reference.kinds.items():
        if kind not in measured.kinds or not arrays:
            continue
        # A bias that the next batch normalisation takes away again has no gradient but for rounding, which can be held
        # against the other gradients only.
        overall = max(float(np.max(np.abs(array))) for array in arrays.values()) if kind == "gradients" else 0.0
        for name, theirs in arrays.items():
            what = f"{kind}, {name}" if kind in ("evaluation", "training") else kind
            found = _difference(measured.kinds[kind][name], theirs, overall)
            differences[what] = max(differences.get(what, 0.0), found)
    return differences


def _difference(ours: np.ndarray, theirs: np.ndarray, overall: float = 0.0) -> float:
    """Returns the largest difference relative to the largest number; infinite for other shapes and infinite numbers.

    Where that number is less than 1e-12 of `overall`, the difference is relative to the latter.
    """
    if ours.shape != theirs.shape or not np.isfinite(ours).all() or not np.isfinite(theirs).all():
        return float("inf")
    scale, gap = float(np.max(np.abs(theirs))), float(np.max(np.abs(ours - theirs)))
    scale = overall if scale < 1e-12 * overall else scale
    return gap / scale if scale else (0.0 if gap == 0 else float("inf"))


def largest(rows: Sequence[Row], column: str) -> float:
    """Returns the largest difference in a column."""
    return max(row.differences[column] for row in rows if column in row.differences)


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as text."""
    columns = list(rows[0].differences)
    width = max(len(row.what) for row in rows)
    lines = [" " * width + "".join(f"  {column:>14}" for column in columns)]
    for row in rows:
        cells = [f"{row.differences[column]:.1e}" if column in row.differences else "" for column in columns]
        lines.append(f"{row.what:{width}}" + "".join(f"  {cell:>14}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


# -------------------------------------------------------------------------------------------------------------- details


def _tensors(architecture: Architecture, weights: str | Path | None, seed: int, image_size: int | None) -> Arrays:
    if weights is None:
        return _random_tensors(architecture, seed, image_size)
    entry = named_weights(architecture.name, weights)
    path = download.fetch(entry.name) if entry is not None else Path(weights)
    tensors = names.canonical(files.read(path))
    if f"{_classifier(architecture)}bias" not in tensors:
        likely = recognise(tensors)
        looks = f"; it looks like {likely}" if likely and likely != architecture.name else ""
        raise UserError(f"{path} is not torchvision's file of a {architecture.name} with its classifier{looks}")
    return tensors


def _random_tensors(architecture: Architecture, seed: int, image_size: int | None) -> Arrays:
    """Returns torch's random start, with what starts as a constant moved away from it as training would."""
    import torch

    torch.manual_seed(seed)
    options = {"image_size": image_size} if architecture.fixed_size and image_size else {}
    model = getattr(import_torchvision().models, architecture.name)(weights=None, **options)
    stream, tensors = np.random.RandomState(seed), {}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy().astype(np.float64) if tensor.is_floating_point() else tensor.numpy()
        if name.endswith(_COUNTER):
            array = np.array(stream.randint(1, 1000), np.int64)
        elif array.ndim == 1 and name.endswith(("weight", "running_var")):
            array = stream.uniform(0.5, 1.5, array.shape)
        elif array.ndim == 1:
            array = stream.standard_normal(array.shape) * 0.1
        elif not array.any():
            array = stream.standard_normal(array.shape) * 0.02
        tensors[name] = array
    return tensors


def _options(architecture: Architecture, tensors: Arrays) -> dict[str, Any]:
    """Returns what both sides' models are made with, so that a state dict fits."""
    options: dict[str, Any] = {"num_classes": tensors[f"{_classifier(architecture)}bias"].shape[0]}
    if architecture.fixed_size:
        options["image_size"] = position_size(tensors)
    return options


def _classifier(architecture: Architecture) -> str:
    return names.classifier_prefix(abstract(architecture.build, num_classes=1))


def torch_stages(model: Any) -> dict[str, str]:
    """Returns the torch module whose output is that of each of our stages, in order."""
    if hasattr(model, "layer4"):
        return {"stem": "maxpool", **{f"layer{number}": f"layer{number}" for number in range(1, 5)}}
    if hasattr(model, "features"):
        inner = {f"stage{number}": f"features.{number}" for number in range(1, 8)}
        return {"stem": "features.0", **inner, "head": "features.8"}
    depth = len(model.encoder.layers)
    blocks = {f"block{number}": f"encoder.layers.encoder_layer_{number}" for number in range(depth)}
    return {"stem": "encoder.dropout", **blocks, "norm": "encoder.ln"}


def _torch_map(outputs: Any) -> np.ndarray:
    """Returns a map as NHWC; tokens and vectors as they are."""
    array = _torch_array(outputs)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _torch_array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    return np.array(tensor.double().numpy())


def _host(arrays: dict[str, jax.Array]) -> Arrays:
    return {name: np.asarray(array).astype(np.float64) for name, array in arrays.items()}


def _ending(tensors: Arrays, *, statistics: bool) -> Arrays:
    wanted = (*_STATISTICS, _COUNTER)
    wanted_of = {n: np.asarray(t) for n, t in tensors.items() if n.endswith(wanted) == statistics}
    return {n: t.astype(np.float64, copy=False) for n, t in wanted_of.items()}


@contextlib.contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """Switches 64-bit types on for float64 alone, and reduced-precision products off, for what runs inside."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield
