"""`--smoke`: a recipe reduced to about a minute."""

from __future__ import annotations

from typing import Any

from facefeat_jax.config._checks import option
from facefeat_jax.config.recipes import load_recipe
from facefeat_jax.config.train_config import TrainConfig

_SHRUNK = ("sources", "image_size", "batch_size", "epochs", "limit", "warmup_steps", "unfreeze_every")


def apply_smoke(config: TrainConfig) -> TrainConfig:
    """Returns the config; with `smoke`, reduced to about a minute on two CPU cores and without downloads.

    Sources without a download stay, `avatars` replaces the others, and random weights replace ImageNet's.
    """
    if not config.smoke:
        return config
    from facefeat_jax.data.builders import is_downloaded  # with Pillow, which reading a config does not need

    recipe = load_recipe(config.recipe) if config.recipe else None
    default_run = recipe.run if recipe else None
    shrunk = config.replace(
        # Don't overwrite the real run, unless the user named its folder.
        run=config.run if config.run != default_run else default_run.with_name(f"{default_run.name}-smoke"),
        sources=tuple(source for source in config.data.sources if not is_downloaded(source)) or ("avatars",),
        weights="random" if config.model.weights in ("imagenet", "DEFAULT") else config.model.weights,
        image_size=min(config.data.image_size, 32),
        batch_size=min(config.batches.batch_size, 8),
        epochs=min(config.batches.epochs, 2),
        limit=min(config.data.limit or 44, 44),  # not a multiple of the batch size, so that the last batch is short
        warmup_steps=min(config.optimizer.warmup_steps, 2),
        unfreeze_every=min(config.optimizer.unfreeze_every, 2),
    )
    if recipe:
        _report_changes(config.flat(), recipe.flat(), shrunk.flat())
    return shrunk


def _report_changes(given: dict[str, Any], recipe: dict[str, Any], shrunk: dict[str, Any]) -> None:
    """Prints the values that the user set and `smoke` replaces. It does not report the recipe's own values."""
    from facefeat_jax.system.progress import say

    for name in _SHRUNK:
        wanted, taken = given[name], shrunk[name]
        if wanted not in (taken, recipe[name]):
            say(f"--smoke uses {option(name)} {_as_text(taken)} instead of {_as_text(wanted)}")


def _as_text(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
