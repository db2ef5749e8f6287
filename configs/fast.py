"""The notebook's job at a fraction of its cost: the same model and pictures, with frozen stages computed only once.

    facefeat train fast

This needs the same data as `baseline`. Everything except the last block (layer4) is frozen, BatchNorm included, so each
picture is decoded once and goes through the frozen stages once. layer4 and the heads are trained on the cached outputs,
all heads at once. On a GPU it uses bfloat16 and keeps the arrays on the device. Speed against PyTorch:
docs/benchmarks/README.md.
"""

from pathlib import Path

from facefeat_jax.config import TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/fast"),
        sources=("fairface", "glasses", "apparel"),
        tasks=("gender", "glasses", "shirt"),
        image_size=224,
        weights="imagenet",
        dtype="auto",
        schedule="mixed",
        trainable=("last",),
        batch_norm="frozen",
        cache_prefix=True,
        batch_size=32,
        epochs=5,
        learning_rate=1e-4,
    )
