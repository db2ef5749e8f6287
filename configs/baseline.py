"""What the PyTorch notebook does: one task after the other, layer4 and the heads trained, all BatchNorms moving.

    facefeat train baseline

This needs the three data sets (`facefeat prepare fairface --from DIR`, and so on) and downloads torchvision's ImageNet
weights. The notebook reports, after 17.9 minutes on one T4: gender 88.3%, glasses 100%, shirt 97.6%, each right after
its own pass. This recipe prints those results and, beside them, the accuracy of the final weights, which the notebook
never measured.

`--trunk resnet50`, or any other trunk that `facefeat models` lists, is trained by the same rules: its last block
(`layer4` of a ResNet) and the heads.
"""

from pathlib import Path

from facefeat_jax.config import BatchConfig, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/baseline"),
        data=DataConfig(
            sources=("fairface", "glasses", "apparel"),
            tasks=("gender", "glasses", "shirt"),
            image_size=224,
            decode="as_notebook",
        ),
        model=ModelConfig(weights="imagenet", trainable=("last",), batch_norm="batch"),
        batches=BatchConfig(schedule="sequential", epochs=5, batch_size=32),
        optimizer=OptimizerConfig(learning_rate=1e-4, learning_rate_schedule="constant"),
    )
