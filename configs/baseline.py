"""The PyTorch notebook, to the letter: one task after the other, layer4 and the heads trained, all BatchNorms moving.

    facefeat train baseline

Wants the three data sets prepared (`facefeat prepare fairface --from DIR`, and so on) and downloads torchvision's
ImageNet weights. The notebook reports, on one T4 in 17.9 minutes: gender 88.3%, glasses 100%, shirt 97.6%, each right
after its own pass. This recipe prints those figures and, beside them, the accuracy of the final weights, which the
notebook never measured.

`--trunk resnet50`, or another that `facefeat models` lists, trains that one by the same rules: its last block, which is
`layer4` of a ResNet, and the heads.
"""

from pathlib import Path

from facefeat_jax.config import TrainConfig


def config() -> TrainConfig:
    return TrainConfig(
        run=Path("runs/baseline"),
        sources=("fairface", "glasses", "apparel"),
        tasks=("gender", "glasses", "shirt"),
        image_size=224,
        decode="as_notebook",
        weights="imagenet",
        schedule="sequential",
        trainable=("last",),
        batch_norm="batch",
        batch_size=32,
        epochs=5,
        learning_rate=1e-4,
        learning_rate_schedule="constant",
    )
