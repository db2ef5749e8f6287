"""All heads at once, with options that improve accuracy, such as a cosine schedule, weight decay and mirroring.

    facefeat train best

This needs the same data as `baseline`. We measured it at 64 px from random weights: on each of three seeds, the final
weights of every head are better than with the baseline's rules, and better than a linear model. The effect of each
ingredient was measured at 32 px with one seed (docs/benchmarks/recipes.md). Cropping, colour jitter, erasing,
RandAugment, mixup, CutMix and an average of the weights are fields too, but did not help there: runs of a few hundred
steps don't overfit. Nor did layer decay and gradual unfreezing, which are for weights that have learned something. The
recipe as it stands, from ImageNet weights at 224 px, was not measured: that needs a download and a GPU.
"""

from pathlib import Path

from facefeat_jax.config import (
    AugmentationConfig,
    BatchConfig,
    DataConfig,
    ModelConfig,
    NumericsConfig,
    OptimizerConfig,
    TrainConfig,
)


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/best"),
        data=DataConfig(
            sources=("fairface", "glasses", "apparel"), tasks=("gender", "glasses", "shirt"), image_size=224
        ),
        model=ModelConfig(weights="imagenet", trainable=("all",), batch_norm="batch"),
        batches=BatchConfig(schedule="mixed", epochs=5, batch_size=32, balance=0.5),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            learning_rate_schedule="cosine",
            warmup_steps=100,
            weight_decay=0.05,
            label_smoothing=0.05,
        ),
        augmentation=AugmentationConfig(flip=True),
        numerics=NumericsConfig(dtype="auto"),
    )
