"""What a checkpoint holds of the training's state: plain trees, and the state that is made of them again."""

from __future__ import annotations

from typing import Any

from facefeat_jax.training.steps import TrainState, final_weights


def to_trees(state: TrainState) -> dict[str, Any]:
    """Returns the trees of a checkpoint: `model`, the weights that a run would end with now, and `optimizer`, the rest.

    With an average, `model` is the average, since that is what a run is evaluated with; training continues from its own
    weights, which are in `optimizer` then.
    """
    params, batch_stats = final_weights(state)
    return {"model": {"params": params, "batch_stats": batch_stats}, "optimizer": _rest(state)}


def trees_like(state: TrainState) -> dict[str, Any]:
    """Returns trees with the structure, shapes, dtypes and placement of `to_trees`, for any values of the same."""
    return {"model": {"params": state.params, "batch_stats": state.batch_stats}, "optimizer": _rest(state)}


def from_trees(trees: dict[str, Any]) -> TrainState:
    """Returns the state that `to_trees` was given."""
    rest = trees["optimizer"]
    weights = rest.get("trained", trees["model"])
    return TrainState(weights["params"], weights["batch_stats"], rest["optimizer"], rest["step"], rest.get("average"))


def _rest(state: TrainState) -> dict[str, Any]:
    rest = {"optimizer": state.optimizer, "step": state.step}
    if state.average is None:
        return rest
    return {**rest, "trained": {"params": state.params, "batch_stats": state.batch_stats}, "average": state.average}
