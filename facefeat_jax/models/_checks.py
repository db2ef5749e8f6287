"""What a trunk is made with and called with, checked: the message says what is wrong, with shapes, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from facefeat_jax.system.errors import UserError

# Normalised pictures have values about zero; from here on, values of which none is negative are those of bytes.
_NOT_NORMALISED = 20
# Pictures of so few rows may be NCHW: their height is then the number of channels.
_AMBIGUOUS = (2, 3, 4)


class WrongCallError(UserError, ValueError, TypeError):
    """A module was made or called in a way that it can't be; the message is one line, with the remedy."""


def check_widths(**widths: Any) -> None:
    """Raises WrongCallError for what can't be the width of a layer, or a number of channels; None is left out."""
    for name, width in widths.items():
        if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
            raise WrongCallError(f"{name} must be a whole number from 1 up, got {width!r:.60}")


def check_options(*, rngs: object, dtype: Any, param_dtype: Any, **widths: Any) -> None:
    """Raises WrongCallError for what no trunk can be made with."""
    check_widths(**widths)
    check_rngs(rngs)
    for name, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        if not (_is_floating(value) or (value is None and name == "dtype")):
            raise WrongCallError(f"{name} must be a floating-point dtype, such as jnp.bfloat16, got {value!r:.60}")


def check_rngs(rngs: object) -> None:
    """Raises WrongCallError for what is no source of random numbers."""
    if not isinstance(rngs, nnx.Rngs):
        raise WrongCallError(f"rngs must be flax.nnx.Rngs(seed), got {' '.join(repr(rngs).split()):.60}")


def _is_floating(dtype: Any) -> bool:
    try:
        return dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        return False


def check_images(images: Any, in_channels: int) -> None:
    """Raises WrongCallError for what is not a batch of normalised floating-point NHWC images of that many channels.

    Values are looked at where there are any: not inside `jax.jit`, which sees shapes only.
    """
    if not (hasattr(images, "ndim") and hasattr(images, "dtype")):
        raise WrongCallError(f"expected an array of images [batch, height, width, {in_channels}], got {type(images)}")
    if images.ndim != 4 or images.shape[-1] != in_channels:
        hint = " It looks like NCHW: transpose it." if images.ndim == 4 and images.shape[1] == in_channels else ""
        if images.ndim == 3 and images.shape[-1] == in_channels:
            hint = " It looks like one picture: give images[None]."
        raise WrongCallError(
            f"expected images of shape [batch, height, width, {in_channels}], got {images.shape}.{hint}"
        )
    if images.shape[1] == in_channels and in_channels in _AMBIGUOUS:
        raise WrongCallError(
            f"images of shape {images.shape} are NCHW, or {in_channels} pixels high: transpose them to [batch, height, "
            f"width, {in_channels}], or pad or resize such small pictures"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise WrongCallError(
            f"expected floating-point images, got {images.dtype}: normalise them first "
            "(facefeat_jax.models.preprocessing.normalize)"
        )
    low, high = _range(images)
    if low >= 0 and high > _NOT_NORMALISED:
        raise WrongCallError(
            f"expected normalised images, got values from {low:.3g} to {high:.3g} in {images.shape}: give "
            "facefeat_jax.models.normalize(images.astype('uint8')), or divide by 255 and standardise them yourself"
        )


def _range(images: Any) -> tuple[float, float]:
    """Returns the smallest and the largest value, where they are known and near at hand; else zeros."""
    is_known = isinstance(images, jax.Array | np.ndarray) and not isinstance(images, jax.core.Tracer)
    if not is_known or images.size == 0 or not getattr(images, "is_fully_addressable", True):
        return 0.0, 0.0
    with jax.transfer_guard_device_to_host("allow"):
        if isinstance(images, np.ndarray) or all(device.platform == "cpu" for device in images.devices()):
            values = np.asarray(images)  # without a copy, and without a program for each shape
            return float(values.min()), float(values.max())
        return float(jnp.min(images)), float(jnp.max(images))


def check_ready(module: nnx.Module) -> None:
    """Raises WrongCallError for a module whose weights are shapes only, or whose dtype its layers know nothing of."""
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Variable):
            if isinstance(node.get_value(), jax.ShapeDtypeStruct):
                raise WrongCallError(
                    f"this {type(module).__name__} is abstract, its weights are shapes only: fill it with "
                    "weights_conversion.to_flax, or trace it with flax.nnx.eval_shape"
                )
            break
    wanted = vars(module).get("dtype")
    if wanted is None or not _is_floating(wanted):
        return
    layers = (layer for _, layer in nnx.iter_modules(module) if layer is not module)
    dtypes = (getattr(layer, "dtype", None) or getattr(layer, "param_dtype", None) for layer in layers)
    found: set[str] = set()
    for dtype in filter(_is_floating, dtypes):
        if jnp.dtype(dtype) == jnp.dtype(wanted):
            return
        found.add(str(jnp.dtype(dtype)))
    if found:
        raise WrongCallError(
            f"the dtype of this {type(module).__name__} was set to {jnp.dtype(wanted)} after it was made, and its "
            f"layers compute in {', '.join(sorted(found))}: make it with dtype=jnp.{jnp.dtype(wanted)}, or set all of "
            f"them with set_attributes(dtype=jnp.{jnp.dtype(wanted)})"
        )


def no_such(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns what to say of a name that is not among the known ones; it suggests the nearest."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"no {kind} {name!r}.{suggestion}"
