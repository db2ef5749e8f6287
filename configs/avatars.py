"""The quick start: all three heads on the drawn data set, from random weights.

    facefeat train avatars

This takes three to five minutes on two CPU cores. Each head should end above 95% on pictures not trained on (measured:
docs/benchmarks/quickstart.md). The project draws the pictures itself: a good score shows that the system works, and
says nothing about people.
"""

from pathlib import Path

from facefeat_jax.config import TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/avatars"),
        sources=("avatars",),
        image_size=64,
        weights="random",
        schedule="mixed",
        batch_size=32,
        epochs=3,
        learning_rate=1e-3,
        learning_rate_schedule="cosine",
        warmup_steps=50,
        flip=True,
    )
