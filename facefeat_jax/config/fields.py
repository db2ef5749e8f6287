"""The settings of a training run, in groups. The docstring below a field is its help on the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from facefeat_jax.config._checks import Bounds, Checked
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.kinds import MAX_IMAGE_SIZE, DecodePolicy, DType, MatmulPrecision
from facefeat_jax.tasks import BASELINE_TASKS

# Where there is an upper bound as well, more is a typing error or a damaged file.
Count = Annotated[int, Bounds(least=1)]
CountOrZero = Annotated[int, Bounds(least=0)]
# Of a picture or a probability mass: all of it would leave nothing.
Fraction = Annotated[float, Bounds(least=0, below=1)]
# A probability or a power: 1 is allowed.
Share = Annotated[float, Bounds(least=0, most=1)]


@dataclass(frozen=True)
class DataConfig(Checked):
    """The pictures: where they come from, what they are labelled with, and how they are read."""

    sources: tuple[str, ...] = ("fairface", "glasses", "apparel")
    """Names of the prepared data sets to train on."""
    tasks: tuple[str, ...] = BASELINE_TASKS
    """Tasks to train, one head each. With --schedule sequential, they are trained in this order."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    image_size: Annotated[Count, Bounds(most=MAX_IMAGE_SIZE)] = 224
    """Height and width in pixels to which pictures are resized. The aspect ratio is not kept."""
    decode: DecodePolicy = "upright"
    """How picture files become RGB. `upright` applies EXIF rotation, scales 16-bit pictures to 8 bits and composites
    transparency. `as_notebook` does none of these."""
    disjoint: tuple[str, ...] = ()
    """Groups, such as `identity`, to keep apart: training pictures that share a group value with a validation picture
    are left out. Validation pictures are not affected."""
    limit: Annotated[int | None, Bounds(least=1)] = None
    """Use only this many pictures of each split, spread evenly. For smoke tests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, names in (("tasks", self.tasks), ("sources", self.sources)):
            if not names or len(set(names)) != len(names):
                raise UserError(f"--{kind} must name one or more different {kind}, got {list(names)}")


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The trunk, its initial weights, and how much of it is trained."""

    trunk: str = "resnet18"
    """Name of the trunk, the network before the heads (`facefeat models` lists the trunks)."""
    weights: str = "imagenet"
    """Initial weights of the trunk: `imagenet` (downloaded once), the name of other published weights (`facefeat
    models` lists them), the path of a .pth or .safetensors file, `hf-hub:timm/NAME` (timm's, from the
    Hugging Face Hub), or `random`."""
    weights_key: Annotated[str | None, tyro.conf.arg(aliases=["--key"])] = None
    """Key of the weights in a file of --weights with several sets, for example state_dict_ema."""
    trainable: tuple[str, ...] = ("all",)
    """Stages of the trunk to train, by name (`facefeat models` lists them), or `last` (the trunk's last block, for
    example `layer4` of a ResNet), `all` or `none`. The heads are always trained."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """`batch`: all layers normalise with the statistics of the batch and update their running statistics, even in
    frozen stages (as in the notebook). `frozen`: frozen stages use their running statistics and don't change them."""

    @property
    def weights_are_a_file(self) -> bool:
        """Whether `weights` is a path, by its suffix, whether or not there is such a file."""
        return Path(self.weights).suffix in (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class NumericsConfig(Checked):
    """Number formats and precision."""

    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "float32"
    """Number format of the activations. `auto` means bfloat16 on GPU and TPU (parameters, statistics and
    losses stay float32), and float32 on CPU."""
    param_dtype: DType = "float32"
    """Number format of parameters, statistics and optimizer moments. bfloat16 is too coarse for Adam's second
    moment, which then stops changing."""
    matmul_precision: MatmulPrecision = "default"
    """Precision of float32 products. On recent GPUs, JAX's default is TF32."""
    deterministic: bool = False
    """On GPU, use only operations that always give the same bits, and don't choose algorithms by timing. This is
    slower. Without it, a resumed run on GPU may differ in the last digits. CPUs are always deterministic."""


@dataclass(frozen=True)
class BatchConfig(Checked):
    """Which pictures each step takes, in which order, and for how long."""

    schedule: Literal["sequential", "mixed"] = "mixed"
    """`sequential` trains one task after the other in each epoch and validates each after its own pass. `mixed` draws
    the pictures of all sources in one stream. Each loss covers the pictures with a label for its task."""
    epochs: Count = 5
    """Passes over the training data."""
    batch_size: Annotated[Count, Bounds(most=2**20)] = 32
    """Pictures per step, on all devices together. The last batch of an epoch may be smaller."""
    balance: Share = 1.0
    """From 0 to 1: how much the size of a data set counts in a `mixed` batch. Pictures with labels for the same tasks
    form a set, and each set's share of a batch is proportional to its size to this power. 1 shows all pictures equally
    often, 0 gives all sets equal shares. The number of pictures per epoch does not change."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance != 1 and self.schedule != "mixed":
            raise UserError("--balance sets the shares of a mixed batch; give --schedule mixed, or --balance 1")


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """The loss, the learning rate, and how the weights follow them."""

    learning_rate: Annotated[float, Bounds(above=0, below=math.inf), tyro.conf.arg(aliases=["--lr"])] = 1e-4
    """Learning rate of Adam; with a schedule, its peak."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` rises linearly for --warmup-steps, then decays to zero at the last step."""
    warmup_steps: CountOrZero = 0
    """Steps of linear warm-up of the `cosine` schedule. At most half of the run's steps are used."""
    weight_decay: Annotated[float, Bounds(least=0, below=math.inf)] = 0.0
    """Weight decay of AdamW: per step, kernels shrink by this fraction times the learning rate. Norms and biases don't
    decay."""
    layer_decay: Annotated[float, Bounds(above=0, most=1)] = 1.0
    """Layer-wise learning rates, as timm's: the learning rate of each block of the trunk is that of the next one times
    this, and the heads have the full one. 0.75 is usual for fine-tuning; 1 gives every block the full rate."""
    unfreeze_every: CountOrZero = 0
    """Gradual unfreezing: train only the heads for this many steps, then unfreeze one more stage of the trunk each time
    as many have passed, from the last of --trainable to the first. 0 trains all from the first step."""
    label_smoothing: Fraction = 0.0
    """Fraction of each label, below 1, that is spread over all classes."""
    ema: Fraction = 0.0
    """Decay, below 1, of a moving average of weights and statistics. The average is then evaluated, saved and exported.
    0.99 averages over a few hundred steps; 0 means no average."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do if a loss is infinite or NaN. `stop` ends training and names the pictures. `skip` leaves the weights
    as they are and prints a line; it also skips steps with gradients that are not finite."""


@dataclass(frozen=True)
class AugmentationConfig(Checked):
    """Random changes to training pictures. The defaults change nothing."""

    flip: bool = False
    """Mirror each training picture left to right with probability 0.5."""
    crop: Fraction = 0.0
    """Largest fraction of each side, below 1, to cut off a training picture at random. The rest is enlarged."""
    colour_jitter: Fraction = 0.0
    """Largest relative change, below 1, of brightness, contrast and saturation of a training picture. Pictures with a
    colour label (shirt) keep their colours."""
    erase: Share = 0.0
    """Probability, from 0 to 1, of painting over a random rectangle of a training picture."""
    rand_augment: Annotated[CountOrZero, Bounds(most=30)] = 0
    """Magnitude of RandAugment, from 1 to 30: two of torchvision's operations change each training picture. 9 is usual;
    0 leaves it out. Pictures with a colour label (shirt) are only moved, sheared and turned."""
    mixup: Annotated[float, Bounds(least=0, below=math.inf)] = 0.0
    """Parameter of the beta distribution of mixup: each training picture is averaged with another one that has labels
    for the same tasks, and so are the labels. 0.2 is usual for fine-tuning; 0 leaves it out."""
    cutmix: Annotated[float, Bounds(least=0, below=math.inf)] = 0.0
    """The same for CutMix, which pastes in a rectangle of the other picture. 1 is usual. With --mixup, each picture has
    one of the two."""

    @property
    def changes(self) -> list[str]:
        """The fields that change pictures, by name."""
        return [name for name, value in vars(self).items() if value]


@dataclass(frozen=True)
class PipelineConfig(Checked):
    """How pictures get to the device, and how many steps one call takes: speed and memory."""

    packed: Literal["auto", "on", "off"] = "auto"
    """`on`: decode and resize every picture once, into the cache folder, where later runs find it too. `off`: decode
    in every epoch. `auto`: decode once if there is room."""
    feed: Literal["auto", "stream", "device"] = "auto"
    """`device`: keep all pictures on the device and select them by index. `stream`: assemble batches on the host and
    send them ahead. Both give the same batches. `auto` chooses by the free memory and prints its choice."""
    cache_prefix: bool = False
    """Compute the output of the frozen stages once for each picture, and train on the cached outputs. This needs
    --batch-norm frozen and no random changes to the pictures."""
    steps_per_call: CountOrZero = 0
    """Steps in one call of the compiled program. 0 means: 32 on GPU and TPU; on CPU 1, or 32 if only the heads are
    trained on cached outputs."""
    feed_threads: Annotated[Count, Bounds(most=1024)] = 4
    """Threads that assemble batches."""
    feed_prefetch: Annotated[Count, Bounds(most=4096)] = 8
    """Batches to prepare ahead."""


@dataclass(frozen=True)
class CheckpointConfig(Checked):
    """Logs and checkpoints."""

    log_every: Count = 20
    """Steps between transfers of losses from the device. Every step is logged."""
    checkpoint_every: Count = 1000
    """Steps between checkpoints. A checkpoint is also written after each epoch, after Ctrl-C and after SIGTERM."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints to keep. With two or more, the previous one is used if the newest is
    damaged."""
    keep_best: bool = False
    """Also keep the checkpoint of the epoch with the highest validation accuracy, averaged over the heads. With
    --schedule sequential each head is measured after its own pass, before the trunk changes again."""


@dataclass(frozen=True)
class ProcessConfig(Checked):
    """Several processes that train one model."""

    distributed: bool = False
    """This process is one of several that train one model (`facefeat launch` sets this; see docs/devices.md)."""
    heartbeat_s: Count = 60
    """Seconds without a sign of life after which a process counts as dead and the others are ended."""
