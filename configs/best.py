"""Better than the baseline's rules on every head: all heads at once, pictures changed at random, weights averaged.

    facefeat train best

Wants what `baseline` wants. What each ingredient is worth, and three seeds against the baseline's rules:
docs/benchmarks/recipes.md, measured at 48 and 64 px from random weights. From ImageNet weights at 224 px, as it stands
here, it was not measured: that needs a download and a GPU.
"""

from pathlib import Path

from facefeat_jax.config import TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/best"),
        sources=("fairface", "glasses", "apparel"),
        tasks=("gender", "glasses", "shirt"),
        image_size=224,
        weights="imagenet",
        dtype="auto",
        schedule="mixed",
        trainable=("all",),
        batch_norm="batch",
        batch_size=32,
        epochs=5,
        learning_rate=1e-3,
        learning_rate_schedule="cosine",
        warmup_steps=100,
        balance=0.5,
        weight_decay=0.05,
        ema=0.99,
        label_smoothing=0.05,
        flip=True,
        crop=0.2,
        colour_jitter=0.3,
        erase=0.25,
    )
