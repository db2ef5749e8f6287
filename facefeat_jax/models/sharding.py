"""Names for the axes of kernels, by which they can be laid out on a mesh of devices."""

from __future__ import annotations

from typing import Any


def logical_axes(*names: str | None) -> dict[str, Any]:
    """Returns the metadata that names a kernel's axes, for `kernel_metadata` or an `nnx.Param`.

    The names do nothing by themselves. With rules for them, as `nnx.logical_axis_rules([("mlp", "model")])`,
    `nnx.get_partition_spec` and `nnx.get_named_sharding` say how to lay the parameters out on a mesh.

    Convolutions have `conv_in` and `conv_out`; a Vision Transformer `channels`, `embed`, `heads` and `mlp`; linear
    layers of heads and classifiers `features` and `outputs`.
    """
    # Not eager: Flax would want a mesh to be in place before a parameter can be made.
    return {"out_sharding": names, "eager_sharding": False}
