"""Names for the axes of kernels, by which they can be laid out on a mesh of devices."""

from __future__ import annotations

from typing import Any

from facefeat_jax.system.errors import unknown

NAMES = ("conv_in", "conv_out", "channels", "embed", "heads", "mlp", "features", "outputs")
"""Convolutions have `conv_in` and `conv_out`; a Vision Transformer `channels`, `embed`, `heads` and `mlp`; the linear
layers of heads and classifiers `features` and `outputs`."""


def logical_axes(*names: str | None) -> dict[str, Any]:
    """Returns the metadata that names a kernel's axes, for `kernel_metadata` or an `nnx.Param`.

    The names do nothing by themselves; see `axis_rules`.
    """
    # Not eager: Flax would want a mesh to be in place before a parameter can be made.
    return {"out_sharding": names, "eager_sharding": False}


def axis_rules(**axes: str) -> list[tuple[str, str | None]]:
    """Returns rules for `nnx.logical_axis_rules`: `axis_rules(mlp="model")` splits `mlp` over the mesh's axis `model`.

    Under them `nnx.get_named_sharding(state, mesh)` says where each parameter goes. Axes that are not given stay whole.

    Raises:
      UserError: no kernel has an axis of such a name.
    """
    for name in axes:
        if name not in NAMES:
            raise unknown("axis of kernels", name, NAMES)
    return [(name, axes.get(name)) for name in NAMES]
