"""A trunk on both sides, ours and torchvision's: run on the same weights and pictures, and recorded. For `verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.trunk import Trunk
from weights_conversion._masks import Masks, record_masks, replayed, torch_droppers
from weights_conversion._records import (
    Arrays,
    Record,
    load_torch,
    precision,
    split_state,
    torch_array,
    torch_maps,
    torch_state,
)
from weights_conversion.convert import to_flax, to_torch

_STEPS = 3
_LEARNING_RATE = 1e-4
# Adam divides a gradient by its own size, so that with its usual epsilon, 1e-8, one of nothing but rounding moves a
# weight as far as any other. The steps are compared with a larger one, on both sides.
_EPSILON = 1e-6


def jax_side(
    build: Callable[..., Trunk],
    tensors: Arrays,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    dtype: str,
    training: bool,
    masks: Sequence[Masks] | None = None,
) -> Record:
    """Runs our trunk.

    Args:
      build: makes the trunk, with a classifier, given `dtype`, `param_dtype` and `rngs`.
      tensors: a state dict with torchvision's names.
      images: `[batch, height, width, 3]`.
      labels: `[batch]`, class numbers.
      dtype: dtype of weights, inputs and computation.
      training: whether gradients are taken and steps made.
      masks: of each step what is multiplied by where something is dropped at random; None drops nothing.

    Returns:
      `evaluation` and `training`: the map of each stage (NHWC), `pooled` and `logits`; `statistics` after one pass in
      training mode; and, where asked for, `gradients`, and `weights` and `moved statistics` after three steps of Adam.
    """
    with precision(dtype):
        trunk = to_flax(tensors, abstract(build, dtype=dtype, param_dtype=dtype))
        if masks is None:
            trunk.set_attributes(rate=0.0, raise_if_not_found=False)  # dropout and stochastic depth
        pixels = jnp.asarray(images, dtype)

        def forward(trunk: Trunk, pixels: jax.Array) -> dict[str, jax.Array]:
            maps = trunk.stages(pixels)
            pooled = trunk.pooled(maps[list(trunk.STAGES)[-1]])
            return {**maps, "pooled": pooled, "logits": trunk.classify(pooled)}

        def loss_of(params: nnx.State, rest: nnx.State, masks: Masks) -> tuple[jax.Array, Any]:
            model = nnx.merge(graphdef, params, rest, copy=True)
            with replayed(masks):
                outputs = forward(model, pixels)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], jnp.asarray(labels))
            return losses.mean(), (outputs, nnx.state(model, nnx.Not(nnx.Param)))

        def tensors_of(params: nnx.State, rest: nnx.State) -> Arrays:
            return to_torch(nnx.merge(graphdef, params, rest, copy=True))

        trunk.eval()
        evaluation = nnx.jit(forward)(trunk, pixels)
        values = {"evaluation": _host(evaluation)}
        trunk.train()
        graphdef, *states = nnx.split(trunk, nnx.Param, ...)
        params, rest = states
        drawn = [[]] * _STEPS if masks is None else masks
        del trunk, states  # from here on, one copy of what may be gigabytes
        if not training:
            _, (outputs, moved) = jax.jit(loss_of)(params, rest, drawn[0])
        else:
            step = jax.jit(jax.grad(loss_of, has_aux=True))
            gradients, (outputs, moved) = step(params, rest, drawn[0])
            gradient_tensors = tensors_of(gradients, moved)
        values["training"] = _host(outputs)
        values["statistics"] = _statistics(tensors_of(params, moved))
        if training:
            values["gradients"], *_ = split_state(gradient_tensors)
            adam = optax.adam(_LEARNING_RATE, eps=_EPSILON)
            state = adam.init(params)
            for number in range(_STEPS):
                if number:
                    gradients, (_, moved) = step(params, rest, drawn[number])
                updates, state = adam.update(gradients, state, params)
                params, rest = optax.apply_updates(params, updates), moved
            values |= _after_steps(tensors_of(params, rest))
        return _record(values)


def torch_side(
    build: Callable[[], Any],
    tensors: Arrays,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    dtype: str,
    training: bool,
    masks: list[Masks] | None = None,
) -> Record:
    """Runs torchvision's model, which `build` makes; the other arguments and the result are those of `jax_side`.

    What it draws at random is added to `masks`.
    """
    import torch

    model = load_torch(build(), tensors, dtype)
    for layer in torch_droppers(model) if masks is None else ():
        layer.p = 0.0
    drawn = record_masks(model)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(getattr(torch, dtype))
    target = torch.from_numpy(labels)
    stages = torch_stages(model)
    pool = "classifier.0" if type(model).__name__ == "ConvNeXt" else "avgpool"
    maps = torch_maps(model, {**stages, **({"pooled": pool} if hasattr(model, "avgpool") else {})})
    last = list(stages)[-1]

    def forward() -> tuple[Any, Arrays]:
        logits = model(pixels)
        found = {name: _nhwc(array) for name, array in maps.items()}
        pooled = found["pooled"].reshape(len(images), -1) if "pooled" in found else found[last][:, 0]
        return logits, {**found, "pooled": pooled, "logits": torch_array(logits)}

    values: dict[str, Arrays] = {}
    model.eval()
    with torch.no_grad():
        values["evaluation"] = forward()[1]
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE, eps=_EPSILON)
    for number in range(_STEPS if training else 1):
        with torch.set_grad_enabled(training):
            logits, outputs = forward()
        if masks is not None:
            masks.append(drawn.copy())
            drawn.clear()
        if number == 0:
            values["training"] = outputs
            values["statistics"] = _statistics(torch_state(model))
        if training:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, target).backward()
            if number == 0:
                values["gradients"] = {name: torch_array(p.grad) for name, p in model.named_parameters()}
            optimizer.step()
    return _record(values | (_after_steps(torch_state(model)) if training else {}))


def _record(values: dict[str, Arrays]) -> Record:
    return Record({kind: arrays for kind, arrays in values.items() if arrays})  # some trunks have no BatchNorm


def _statistics(tensors: Arrays) -> Arrays:
    """Returns the BatchNorm statistics of a state dict, the counters among them."""
    _, statistics, counters = split_state(tensors)
    return {**statistics, **{name: np.array(count, np.float64) for name, count in counters.items()}}


def _after_steps(tensors: Arrays) -> dict[str, Arrays]:
    return {"weights": split_state(tensors)[0], "moved statistics": _statistics(tensors)}


def torch_stages(model: Any) -> dict[str, str]:
    """Returns the torch module whose output is that of each of our stages, in order."""
    if hasattr(model, "layer4"):
        return {"stem": "maxpool", **{f"layer{number}": f"layer{number}" for number in range(1, 5)}}
    if type(model).__name__ == "ConvNeXt":
        return {"stem": "features.0", **{f"stage{number}": f"features.{2 * number - 1}" for number in range(1, 5)}}
    if hasattr(model, "features"):
        head = len(model.features) - 1
        inner = {f"stage{number}": f"features.{number}" for number in range(1, head)}
        return {"stem": "features.0", **inner, "head": f"features.{head}"}
    depth = len(model.encoder.layers)
    blocks = {f"block{number}": f"encoder.layers.encoder_layer_{number}" for number in range(depth)}
    return {"stem": "encoder.dropout", **blocks, "norm": "encoder.ln"}


def _nhwc(array: np.ndarray) -> np.ndarray:
    """Returns a map of torch's as NHWC; tokens and vectors as they are."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _host(arrays: dict[str, jax.Array]) -> Arrays:
    return {name: np.asarray(array).astype(np.float64) for name, array in arrays.items()}
