"""A model's values as nested dicts of arrays, apart from its structure: what jitted steps take."""

from __future__ import annotations

from typing import Any

from flax import nnx

Values = dict[str, Any]


def split_values(model: nnx.Module) -> tuple[nnx.GraphDef, Values, Values]:
    """Returns the structure, the parameters and the running statistics; `nnx.merge` puts them together again."""
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = map(nnx.to_pure_dict, states)
    return graphdef, params, batch_stats
