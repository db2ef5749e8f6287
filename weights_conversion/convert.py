"""State dicts to modules and back, strictly: every source used once, every target filled once."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from facefeat_jax.models import MultiTaskModel
from facefeat_jax.models._positions import bicubic
from facefeat_jax.models._promotion import set_up
from facefeat_jax.models.abstract import abstract
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.registry import ARCHITECTURES
from facefeat_jax.models.trunk import Trunk
from facefeat_jax.system.errors import UserError
from weights_conversion import _names as names
from weights_conversion._timm_names import are_timms_efficientnet
from weights_conversion.heads import cause_of

Model = TypeVar("Model", bound=MultiTaskModel | Trunk)
COUNTER = "num_batches_tracked"
POSITIONS = "encoder.pos_embedding"
_TIMMS_EPSILON = 1e-5


class WeightsMismatchError(UserError):
    """The weights are those of another model; the message lists every name and shape that doesn't fit."""


def to_flax(state_dict: Mapping[str, np.ndarray], model: Model, *, source: str = "the state dict") -> Model:
    """Fills a model with the tensors of a torch state dict.

    Every tensor must be used and every parameter and statistic filled, with three exceptions: the classifier (`fc.*` of
    a ResNet) is dropped where the model has none; `num_batches_tracked` may be missing and then is 0; a file of a trunk
    alone (no `backbone.` in its names) fills a multi-task model's trunk, and its heads keep what they have. Position
    embeddings for pictures of another size are resized, as torchvision's `interpolate_embeddings` does.

    Args:
      state_dict: names as torchvision's (a trunk) or the baseline's (`backbone.*`, `{task}_head.*`), axes as torch's.
      model: filled in place; it may be abstract (`nnx.eval_shape`). Nothing is changed where an error is raised.
      source: what the error message calls the weights.

    Returns:
      `model`, with the values in the dtypes it had.

    Raises:
      WeightsMismatchError: names or shapes don't fit (all of them are in the message), tensors are of a type that says
        something else (complex, quantised), or values are beyond what the model's dtype can hold.
    """
    if isinstance(model, MultiTaskModel) and is_trunk_only(state_dict):
        to_flax(state_dict, model.trunk, source=source)
        return model

    trunk = model.trunk if isinstance(model, MultiTaskModel) else model
    if are_timms_efficientnet(state_dict):
        _require_timms_epsilon(trunk, source)
    state_dict = names.canonical(state_dict)
    classifier = names.classifier_prefix(model)
    unused = {name for name in state_dict if trunk.fc is not None or not name.startswith(classifier)}
    missing: list[str] = []
    misshapen: list[str] = []
    unfit: list[str] = []
    values: list[tuple[nnx.Variable, np.ndarray]] = []
    for variable, torch_name, layout in _entries(model):
        if torch_name not in state_dict:
            if torch_name.endswith(COUNTER):
                values.append((variable, np.zeros((), np.int32)))
            else:
                missing.append(torch_name)
            continue
        unused.discard(torch_name)
        tensor = np.asarray(state_dict[torch_name])
        if torch_name.endswith(COUNTER):
            tensor = _counter(tensor)
        expected = layout.torch_shape(variable.shape)
        if torch_name.endswith(POSITIONS):
            tensor = _resized(tensor, expected)
        if tensor.shape != expected:
            misshapen.append(f"{torch_name} is {tensor.shape} where {expected} is needed")
            continue
        if reason := _unfit(tensor, variable.dtype):
            unfit.append(f"{torch_name} {reason}")
            continue
        values.append((variable, layout.flax_array(tensor)))
    if missing or misshapen or unused:
        raise WeightsMismatchError(_mismatch(model, state_dict, source, missing, misshapen, sorted(unused)))
    if unfit:
        raise WeightsMismatchError(f"{source} can't be used: {_some(unfit)}. Save the weights as plain floats")
    with set_up():
        for variable, array in values:
            variable.set_value(jnp.asarray(array, variable.dtype))
    return model


def _require_timms_epsilon(trunk: Trunk, source: str) -> None:
    """Raises WeightsMismatchError where layers normalise with another epsilon than timm's: the answers would differ."""
    norms = [module for _, module in nnx.iter_modules(trunk) if isinstance(module, BatchNorm)]
    if strange := {norm.epsilon for norm in norms} - {_TIMMS_EPSILON}:
        raise WeightsMismatchError(
            f"{source} is timm's, whose EfficientNets normalise with an epsilon of {_TIMMS_EPSILON}; the model's is "
            f"{max(strange)}: make it with norm_layer=functools.partial(BatchNorm, epsilon={_TIMMS_EPSILON}), unless "
            "the file is of a tf_efficientnet, which pads in another way and has no place here"
        )


def _counter(tensor: np.ndarray) -> np.ndarray:
    """Returns a count of batches as a whole number, also where an average or `half()` has made a float of it.

    What is not finite then, a count beyond float16, becomes 0; nothing that a model answers depends on it.
    """
    if tensor.shape == (1,):
        tensor = tensor.reshape(())
    if np.issubdtype(tensor.dtype, np.floating) or tensor.dtype.isbuiltin == 2:
        tensor = np.rint(np.nan_to_num(tensor.astype(np.float64), posinf=0, neginf=0)).clip(0, 2**31 - 1)
        return tensor.astype(np.int64)
    return tensor


def _unfit(tensor: np.ndarray, dtype: DTypeLike) -> str:
    """Returns why a tensor's values can't be had in a dtype, or nothing."""
    is_float = jnp.issubdtype(dtype, jnp.floating)
    if not jnp.issubdtype(tensor.dtype, jnp.floating if is_float else jnp.integer):
        return f"is of type {tensor.dtype}"
    if is_float and tensor.dtype.itemsize > jnp.dtype(dtype).itemsize:
        finite = tensor[np.isfinite(tensor)]
        if finite.size and np.abs(finite).max() > jnp.finfo(dtype).max:
            return f"holds values beyond what {jnp.dtype(dtype)} can"
    return ""


def _resized(positions: np.ndarray, expected: tuple[int, ...]) -> np.ndarray:
    """Returns position embeddings for another grid of patches, if both are of square pictures and the same width."""
    sides = [math.isqrt(max(shape[1] - 1, 0)) for shape in (positions.shape, expected) if len(shape) == 3]
    is_square = len(sides) == 2 and [side**2 + 1 for side in sides] == [positions.shape[1], expected[1]]
    if positions.shape == expected or not is_square or positions.shape[::2] != expected[::2] or 0 in sides:
        return positions
    # In numpy's float64, whatever the model's dtype and jax's configuration.
    rows = bicubic(*sides)
    image = positions[0, 1:].astype(np.float64).reshape(sides[0], sides[0], -1)
    resized = np.einsum("yi,xj,ijc->yxc", rows, rows, image).reshape(1, -1, positions.shape[2])
    return np.concatenate([positions[:, :1], resized.astype(positions.dtype)], axis=1)


def is_trunk_only(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Returns whether a state dict is a trunk's, as torchvision saves it, and not that of a model with heads."""
    return not any(name.startswith(names.BACKBONE[0]) for name in state_dict)


def classes_of(state_dict: Mapping[str, np.ndarray], trunk: Trunk) -> int | None:
    """Returns the width of a state dict's classifier, by the names of a trunk's family; None where it has none."""
    weight = names.canonical(state_dict).get(f"{names.classifier_prefix(trunk)}weight")
    return weight.shape[0] if weight is not None and np.ndim(weight) == 2 else None


def torch_shapes(model: MultiTaskModel | Trunk) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes that `to_torch` would give; the model may be abstract."""
    return {name: layout.torch_shape(variable.shape) for variable, name, layout in _entries(model)}


def recognise(state_dict: Mapping[str, np.ndarray]) -> str | None:
    """Returns the name of the architecture that a state dict belongs to, or None where it is none of ours.

    Classifier, heads and counters do not matter, nor do the number of channels and the size of the pictures.
    """
    shapes = {
        name.removeprefix(names.BACKBONE[0]): tuple(np.shape(tensor))
        for name, tensor in names.canonical(state_dict).items()
        if is_trunk_only(state_dict) or name.startswith(names.BACKBONE[0])
    }
    for architecture in _plausible(shapes):
        first, classifier, expected = _fingerprint(architecture)

        def body(shapes: Mapping[str, tuple[int, ...]], first=first, classifier=classifier) -> dict:
            kept = (n for n in shapes if not n.endswith(COUNTER) and not n.startswith(classifier))
            # A first layer of any channels, positions of any grid: without the second axis.
            free = (first, POSITIONS)
            return {name: shapes[name][:1] + shapes[name][2:] if name in free else shapes[name] for name in kept}

        if body(shapes) == body(expected):
            return architecture
    return None


def _plausible(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yields the architectures that names may be of. A family is left out where its smallest has few of the names."""
    others: set[tuple[str, ...]] = set()
    for architecture in ARCHITECTURES.values():
        family = (architecture.paper, *architecture.stages)
        if family in others:
            continue
        first, _, expected = _fingerprint(architecture.name)
        if first in shapes and len(shapes.keys() & expected.keys()) >= len(expected) / 4:
            yield architecture.name
        elif first:
            others.add(family)


def nearest(state_dict: Mapping[str, np.ndarray]) -> str | None:
    """Returns the architecture that has most of the names and shapes of a state dict; None where none has any."""
    shapes = {
        name.removeprefix(names.BACKBONE[0]): tuple(np.shape(tensor))
        for name, tensor in names.canonical(state_dict).items()
    }
    shared = {
        name: len(shapes.items() & _fingerprint(name)[2].items()) - len(_fingerprint(name)[2]) / 1e6
        for name in _plausible(shapes)
    }
    return max(shared, key=lambda name: shared[name], default=None)


def position_size(state_dict: Mapping[str, np.ndarray]) -> int | None:
    """Returns the side in pixels of the pictures that a state dict's position embeddings are for; None without any."""
    state_dict = names.canonical(state_dict)
    for prefix in ("", names.BACKBONE[0]):
        positions, patches = (state_dict.get(f"{prefix}{name}") for name in (POSITIONS, "conv_proj.weight"))
        if positions is not None and patches is not None and np.ndim(positions) == 3 and np.ndim(patches) == 4:
            return math.isqrt(max(positions.shape[1] - 1, 0)) * patches.shape[-1] or None
    return None


@functools.cache
def _fingerprint(name: str) -> tuple[str, str, dict[str, tuple[int, ...]]]:
    """Returns an architecture's first tensor, what its classifier's names begin with, and all names and shapes.

    No file has the first tensor of a trunk whose names in PyTorch are not known: it is the empty text.
    """
    trunk = abstract(ARCHITECTURES[name].build, num_classes=1)
    try:
        rows = names.table(trunk)
    except names.UnknownLayerError:
        return "", "", {}
    shapes = torch_shapes(trunk)
    first = next(f"{row.torch}.weight" for row in rows if f"{row.torch}.weight" in shapes)
    return first, names.classifier_prefix(trunk), shapes


def to_torch(model: MultiTaskModel | Trunk) -> dict[str, np.ndarray]:
    """Returns the model's tensors under torch's names and in torch's axis order, as PyTorch would save them.

    Returns:
      `{name: array}` in the dtypes of the model; counters are int64, as torch's are.
    """
    state_dict = {}
    for variable, torch_name, layout in _entries(model):
        array = np.asarray(jax.device_get(variable.get_value()))
        if torch_name.endswith(COUNTER):
            array = array.astype(np.int64)
        # reshape: ascontiguousarray makes a scalar one-dimensional.
        transposed = layout.torch_array(array)
        state_dict[torch_name] = np.ascontiguousarray(transposed).reshape(transposed.shape)
    return state_dict


def torch_names(model: MultiTaskModel | Trunk) -> dict[str, str]:
    """Returns torch's name of each parameter and statistic, by its path in the module tree (dotted)."""
    translate = names.translator(names.table(model))
    paths = (path for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Param | nnx.BatchStat))
    return {path: translate(path)[0] for path in (".".join(map(str, path)) for path in paths)}


def _entries(model: MultiTaskModel | Trunk) -> Iterator[tuple[nnx.Variable, str, names.Layout]]:
    """Yields (variable, torch's name, layout) for each parameter and statistic of the model itself, not of a copy."""
    translate = names.translator(names.table(model))
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Param | nnx.BatchStat):
            yield node, *translate(".".join(map(str, path)))


def _mismatch(
    model: MultiTaskModel | Trunk,
    state_dict: Mapping[str, np.ndarray],
    source: str,
    missing: list[str],
    misshapen: list[str],
    unused: list[str],
) -> str:
    trunk = model.trunk if isinstance(model, MultiTaskModel) else model
    parts = []
    if misshapen:
        parts.append(f"wrong shapes: {_some(misshapen, '; ')}")
    if missing:
        parts.append(f"{len(missing)} missing: {_some(missing)}")
    if unused:
        cause = cause_of(unused)
        parts.append(f"{len(unused)} that this model has no place for: {_some(unused)}{f' ({cause})' if cause else ''}")
    classifier = names.classifier_prefix(model)
    if all(name.startswith(classifier) for name in (*missing, *misshapen, *unused)):
        return (
            f"{source} fits this {type(trunk).__name__} but for its classifier ({'. '.join(parts)}). To draw a new "
            "one, call create_classifier(name, weights=..., num_classes=...), or make the trunk with num_classes=None, "
            "fill it and call reset_classifier(n)"
        )
    # All tensors fit another architecture, or the names are nothing that we know.
    likely = recognise(state_dict)
    looks = f"It looks like {likely}. " if likely and (missing or unused or len(misshapen) > 1) else ""
    return (
        f"{source} does not fit this {type(trunk).__name__}. {looks}({'. '.join(parts)}). "
        "Give weights of the same architecture, or create the model that they belong to."
    )


def _some(items: list[str], separator: str = ", ", most: int = 6) -> str:
    return separator.join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
