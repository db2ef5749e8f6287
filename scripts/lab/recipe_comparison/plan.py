"""The rows of the comparison: what each is trained with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from facefeat_jax.config import TrainConfig, load_recipe

Part = Literal["ablation", "seeds"]

# Of `best`, what is added to the plain mixed recipe one by one. The first two are what all further rows have.
SCHEDULE = ("learning_rate", "learning_rate_schedule", "warmup_steps")
INGREDIENTS: dict[str, tuple[str, ...]] = {
    "flip": ("flip",),
    "crop": ("crop",),
    "colour": ("colour_jitter",),
    "erasing": ("erase",),
    "weight decay": ("weight_decay",),
    "average of weights": ("ema",),
    "label smoothing": ("label_smoothing",),
}
# Measured later, with the row that they are added to once more beside them. They are not in `with all`.
AGAIN = "mixed, schedule, again"
FINE_TUNING: dict[str, tuple[str, ...]] = {
    "RandAugment": ("rand_augment",),
    "mixup": ("mixup",),
    "CutMix": ("cutmix",),
    "layer decay": ("layer_decay",),
    "gradual unfreezing": ("unfreeze_every",),
}
# What is tried where `best` has it switched off.
TRIED = {
    "flip": True,
    "crop": 0.2,
    "colour_jitter": 0.3,
    "erase": 0.25,
    "weight_decay": 0.05,
    "ema": 0.99,
    "label_smoothing": 0.05,
    "rand_augment": 9,
    "mixup": 0.2,
    "cutmix": 1.0,
    "layer_decay": 0.75,
    "unfreeze_every": 20,
}


@dataclass(frozen=True)
class Size:
    """How much a part of the comparison trains."""

    image_size: int  # side of the pictures in pixels
    epochs: int  # passes over the training pictures
    limit: int | None  # how many pictures of each split of each set; None for all


@dataclass(frozen=True)
class Row:
    """One training run of the comparison."""

    part: Part  # `ablation` or `seeds`
    name: str  # of the row in the tables
    seed: int  # of weights, order and augmentation
    fields: dict[str, Any] = field(hash=False)  # what of the config is not the baseline's

    @property
    def key(self) -> str:
        """Name of its files."""
        return f"{self.part}-{self.name.replace(' ', '-').replace(',', '')}-{self.seed}"

    def config(self, size: Size, weights: str) -> TrainConfig:
        """Returns its config, without a run folder."""
        return load_recipe("baseline").replace(
            recipe="",
            # Nothing is frozen: what random weights make of a picture is no ground to train a last block on.
            trainable=("all",),
            image_size=size.image_size,
            epochs=size.epochs,
            limit=size.limit,
            weights=weights,
            seed=self.seed,
            **{"disjoint": ("identity",), **self.fields},
        )


def best_fields() -> dict[str, Any]:
    """Returns what `configs/best.py` says of training, apart from size, weights and place."""
    best, baseline = load_recipe("best").flat(), load_recipe("baseline").flat()
    left = {"run", "recipe", "weights", "image_size", "epochs", "trainable", "dtype", "batch_size", "seed", "limit"}
    return {name: value for name, value in best.items() if name not in left and value != baseline[name]}


def ablation(seed: int = 0) -> list[Row]:
    """Returns the rows of the ablation: the baseline's rules, then mixed batches, then a schedule, then each alone.

    Balance is not among them: a limit makes the sets equal, so that there is nothing to balance.
    """
    best = best_fields()
    mixed = {name: best[name] for name in ("schedule", "decode")}
    scheduled = {**mixed, **{name: best[name] for name in SCHEDULE}}
    rows = [
        Row("ablation", "baseline", seed, {}),
        Row("ablation", "mixed", seed, mixed),
        Row("ablation", "mixed, schedule", seed, scheduled),
    ]

    def alone(ingredients: dict[str, tuple[str, ...]]) -> list[Row]:
        return [
            Row("ablation", f"with {name}", seed, scheduled | {one: best.get(one, TRIED[one]) for one in fields})
            for name, fields in ingredients.items()
        ]

    rows += alone(INGREDIENTS)
    everything = {one: best.get(one, TRIED[one]) for fields in INGREDIENTS.values() for one in fields}
    rows.append(Row("ablation", "with all", seed, {**scheduled, **everything}))
    rows.append(Row("ablation", "best", seed, best))
    rows.append(Row("ablation", "best, bfloat16", seed, {**best, "dtype": "bfloat16"}))
    rows.append(Row("ablation", AGAIN, seed, scheduled))
    return [*rows, *alone(FINE_TUNING)]


def seeds(count: int) -> list[Row]:
    """Returns the rows of the comparison over seeds, those that matter most first."""
    best = best_fields()
    mixed = {name: best[name] for name in ("schedule", "decode")}
    rows = [
        Row("seeds", name, seed, fields) for seed in range(count) for name, fields in (("baseline", {}), ("best", best))
    ]
    rows.append(Row("seeds", "mixed", 0, mixed))
    rows.append(Row("seeds", "best, other balance", 0, {**best, "balance": 1.5 - best.get("balance", 1.0)}))
    rows.append(Row("seeds", "best, plain split", 0, {**best, "disjoint": ()}))
    return rows
