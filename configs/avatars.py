"""The quick start: all three heads on the drawn data set, from random weights.

    facefeat train avatars

This takes three to five minutes on two CPU cores. Each head should end above 95% on pictures not trained on (measured:
docs/benchmarks/quickstart.md). The project draws the pictures itself: a good score shows that the system works, and
says nothing about people.
"""

from pathlib import Path

from facefeat_jax.config import (
    AugmentationConfig,
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/avatars"),
        data=DataConfig(sources=("avatars",), image_size=64),
        model=ModelConfig(weights="random"),
        batches=BatchConfig(schedule="mixed", epochs=3, batch_size=32),
        optimizer=OptimizerConfig(learning_rate=1e-3, learning_rate_schedule="cosine", warmup_steps=50),
        augmentation=AugmentationConfig(flip=True),
    )
