"""The quick start: all three heads on the drawn data set, from random weights.

    facefeat train avatars

Three to five minutes on two CPU cores; each head should end above 95% on pictures not trained on (measured:
docs/benchmarks/quickstart.md). The pictures are drawn by this project's own code: a good score here says that the
system works, and nothing about people.
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
