"""The notebook's job at a fraction of its cost: the same model and pictures, with frozen stages computed only once.

    facefeat train fast

This needs the same data as `baseline`. Everything except the last block (layer4) is frozen, BatchNorm included, so each
picture is decoded once and goes through the frozen stages once. layer4 and the heads are trained on the cached outputs,
all heads at once. On a GPU it uses bfloat16 and keeps the arrays on the device. Speed against PyTorch:
docs/benchmarks/README.md.
"""

from pathlib import Path

from facefeat_jax.config import (
    BatchConfig,
    DataConfig,
    ModelConfig,
    NumericsConfig,
    OptimizerConfig,
    PipelineConfig,
    TrainConfig,
)


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/fast"),
        data=DataConfig(
            sources=("fairface", "glasses", "apparel"), tasks=("gender", "glasses", "shirt"), image_size=224
        ),
        model=ModelConfig(weights="imagenet", trainable=("last",), batch_norm="frozen"),
        batches=BatchConfig(schedule="mixed", epochs=5, batch_size=32),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        numerics=NumericsConfig(dtype="auto"),
        pipeline=PipelineConfig(cache_prefix=True),
    )
