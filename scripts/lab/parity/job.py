"""The whole job that both sides do: what may be chosen, and the config that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from facefeat_jax.config import TrainConfig

Side = Literal["jax", "torch"]
SIDES: tuple[Side, ...] = ("jax", "torch")
START = "start.safetensors"  # the weights that both sides start from
# What says where a run lies and how it is driven, but does not change its numbers.
_NOT_COMPARED = ("run", "data_dir", "resume", "overwrite", "feed_threads", "feed_prefetch", "log_every", "weights")


@dataclass(frozen=True)
class Job:
    """The baseline's rules on prepared data sets."""

    out: Path = Path("runs/compare")
    """Folder for both sides' files and for comparison.md and comparison.json."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; the default is $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    sources: tuple[str, ...] = ("fairface", "glasses", "apparel")
    """Prepared data sets."""
    weights: str = "random"
    """`random` (nothing is frozen then), `imagenet`, or a .pth or .safetensors file (then layer4 and the heads are
    trained)."""
    image_size: int = 64
    """Side of the pictures in pixels."""
    epochs: int = 5
    """Passes over each task's pictures."""
    batch_size: int = 32
    """Pictures per step."""
    seed: int = 0
    """Of random weights and of the order."""
    limit: int | None = None
    """Use only this many pictures of each split."""

    def config(self) -> TrainConfig:
        """Returns the config of the JAX side: the baseline recipe with this job's sizes."""
        from facefeat_jax.config import load_recipe
        from facefeat_jax.data.dataset import default_data_dir

        recipe = load_recipe("baseline")
        return recipe.replace(
            run=self.out / "jax",
            data_dir=self.data_dir or default_data_dir(),
            sources=self.sources,
            weights=str(self.out / START),
            trainable=("all",) if self.weights == "random" else recipe.model.trainable,
            image_size=self.image_size,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            limit=self.limit,
            # PyTorch's side computes in float32 too; JAX would take TF32 on a GPU.
            matmul_precision="highest",
        )

    def settings(self) -> dict[str, Any]:
        """Returns what the figures depend on; a folder holds one job only."""
        values = {name: value for name, value in self.config().to_json().items() if name not in _NOT_COMPARED}
        return {**values, "weights": self.weights}

    def command(self) -> str:
        """Returns the command that does the job, without anything of the machine that it ran on."""
        values = {
            "data-dir": "DIR",
            "sources": " ".join(self.sources),
            "weights": Path(self.weights).name,
            "image-size": self.image_size,
            "epochs": self.epochs,
            "batch-size": self.batch_size,
            "seed": self.seed,
            **({} if self.limit is None else {"limit": self.limit}),
        }
        return "python scripts/compare_with_pytorch.py train " + " ".join(f"--{k} {v}" for k, v in values.items())
