"""The configuration of a training run: one frozen dataclass, which recipes and the command line fill."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.types import MAX_IMAGE_SIZE, DecodePolicy, DType, MatmulPrecision
from facefeat_jax.tasks import BASELINE_TASKS, TASKS

__all__ = ["TrainConfig", "apply_smoke", "list_recipes", "load_recipe"]

# Lower bounds, inclusive.
_LEAST = {
    "image_size": 1,
    "batch_size": 1,
    "epochs": 1,
    "feed_threads": 1,
    "feed_prefetch": 1,
    "log_every": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "steps_per_call": 0,
    "warmup_steps": 0,
    "seed": 0,
    "heartbeat_s": 1,
}

# Upper bounds, inclusive: more is a typing error or a damaged file.
_MOST = {
    "image_size": MAX_IMAGE_SIZE,
    "batch_size": 2**20,
    "feed_threads": 1024,
    "feed_prefetch": 4096,
    "seed": 2**31 - 1,
}

# Fractions: 0 or more, and below this bound (for the last two, 1 is allowed).
_UP_TO_ONE = math.nextafter(1.0, 2.0)
_BELOW = {
    "crop": 1.0,
    "colour_jitter": 1.0,
    "label_smoothing": 1.0,
    "ema": 1.0,
    "erase": _UP_TO_ONE,
    "balance": _UP_TO_ONE,
}


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run. Recipes in `configs/` set them; `--field value` overrides the recipe."""

    # --- Where
    run: Path = Path("runs/run")
    """Folder of the run: configuration, logs, checkpoints, results and report."""
    data_dir: Path | None = None
    """Folder of the prepared data sets. The default is $TFDS_DATA_DIR, or ~/tensorflow_datasets."""

    # --- Data
    sources: tuple[str, ...] = ("fairface", "glasses", "apparel")
    """Names of the prepared data sets to train on."""
    tasks: tuple[str, ...] = BASELINE_TASKS
    """Tasks to train, one head each. With --schedule sequential, they are trained in this order."""
    image_size: int = 224
    """Height and width in pixels to which pictures are resized. The aspect ratio is not kept."""
    decode: DecodePolicy = "upright"
    """How picture files become RGB. `upright` applies EXIF rotation, scales 16-bit pictures to 8 bits and composites
    transparency. `as_notebook` does none of these."""
    disjoint: tuple[str, ...] = ()
    """Groups, such as `identity`, to keep apart: training pictures that share a group value with a validation picture
    are left out. Validation pictures are not affected."""
    limit: int | None = None
    """Use only this many pictures of each split, spread evenly. For smoke tests."""

    # --- Model
    trunk: str = "resnet18"
    """Name of the trunk, the network before the heads (`facefeat models` lists the trunks)."""
    weights: str = "imagenet"
    """Initial weights of the trunk: `imagenet` (downloaded once), the name of other published weights (`facefeat
    models` lists them), the path of a .pth or .safetensors file, or `random`."""
    weights_key: Annotated[str | None, tyro.conf.arg(aliases=["--key"])] = None
    """Key of the weights in a file of --weights with several sets, for example state_dict_ema."""
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

    # --- Training
    schedule: Literal["sequential", "mixed"] = "mixed"
    """`sequential` trains one task after the other in each epoch and validates each after its own pass. `mixed` draws
    the pictures of all sources in one stream. Each loss covers the pictures with a label for its task."""
    trainable: tuple[str, ...] = ("all",)
    """Stages of the trunk to train, by name (`facefeat models` lists them), or `last` (the trunk's last block, for
    example `layer4` of a ResNet), `all` or `none`. The heads are always trained."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """`batch`: all layers normalise with the statistics of the batch and update their running statistics, even in
    frozen stages (as in the notebook). `frozen`: frozen stages use their running statistics and don't change them."""
    batch_size: int = 32
    """Pictures per step, on all devices together. The last batch of an epoch may be smaller."""
    epochs: int = 5
    """Passes over the training data."""
    learning_rate: float = 1e-4
    """Learning rate of Adam; with a schedule, its peak."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` rises linearly for --warmup-steps, then decays to zero at the last step."""
    warmup_steps: int = 0
    """Steps of linear warm-up of the `cosine` schedule. At most half of the run's steps are used."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do if a loss is infinite or NaN. `stop` ends training and names the pictures. `skip` leaves the weights
    as they are and prints a line; it also skips steps with gradients that are not finite."""
    balance: float = 1.0
    """From 0 to 1: how much the size of a data set counts in a `mixed` batch. Pictures with labels for the same tasks
    form a set, and each set's share of a batch is proportional to its size to this power. 1 shows all pictures equally
    often, 0 gives all sets equal shares. The number of pictures per epoch does not change."""
    weight_decay: float = 0.0
    """Weight decay of AdamW: per step, kernels shrink by this fraction times the learning rate. Norms and biases don't
    decay."""
    ema: float = 0.0
    """Decay, below 1, of a moving average of weights and statistics. The average is then evaluated, saved and exported.
    0.99 averages over a few hundred steps; 0 means no average."""
    label_smoothing: float = 0.0
    """Fraction of each label, below 1, that is spread over all classes."""
    flip: bool = False
    """Mirror each training picture left to right with probability 0.5."""
    crop: float = 0.0
    """Largest fraction of each side, below 1, to cut off a training picture at random. The rest is enlarged."""
    colour_jitter: float = 0.0
    """Largest relative change, below 1, of brightness, contrast and saturation of a training picture. Pictures with a
    colour label (shirt) keep their colours."""
    erase: float = 0.0
    """Probability, from 0 to 1, of painting over a random rectangle of a training picture."""
    seed: int = 0
    """Seed of the initial weights, shuffling and augmentation."""

    # --- Feed
    packed: Literal["auto", "on", "off"] = "auto"
    """`on`: decode and resize every picture once, into the cache folder, where later runs find it too. `off`: decode
    in every epoch. `auto`: decode once if there is room."""
    feed: Literal["auto", "stream", "device"] = "auto"
    """`device`: keep all pictures on the device and select them by index. `stream`: assemble batches on the host and
    send them ahead. Both give the same batches. `auto` chooses by the free memory and prints its choice."""
    cache_prefix: bool = False
    """Compute the output of the frozen stages once for each picture, and train on the cached outputs. This needs
    --batch-norm frozen and no random changes to the pictures."""
    steps_per_call: int = 0
    """Steps in one call of the compiled program. 0 means: 32 on GPU and TPU; on CPU 1, or 32 if only the heads are
    trained on cached outputs."""
    feed_threads: int = 4
    """Threads that assemble batches."""
    feed_prefetch: int = 8
    """Batches to prepare ahead."""

    # --- Several processes
    distributed: bool = False
    """This process is one of several that train one model (`facefeat launch` sets this; see docs/devices.md)."""
    heartbeat_s: int = 60
    """Seconds without a sign of life after which a process counts as dead and the others are ended."""

    # --- Logs and checkpoints
    log_every: int = 20
    """Steps between transfers of losses from the device. Every step is logged."""
    checkpoint_every: int = 1000
    """Steps between checkpoints. A checkpoint is also written after each epoch, after Ctrl-C and after SIGTERM."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep. With two or more, the previous one is used if the newest is
    damaged."""
    keep_best: bool = False
    """Also keep the checkpoint of the epoch with the highest validation accuracy, averaged over the heads. With
    --schedule sequential each head is measured after its own pass, before the trunk changes again."""
    resume: bool = False
    """Resume from the newest checkpoint in the run folder."""
    overwrite: bool = False
    """Delete an earlier run in the run folder."""
    smoke: bool = False
    """Run the whole path in about a minute, on a few drawn pictures and random weights. The result means nothing."""

    # --- Set when a recipe is loaded, not on the command line
    recipe: Annotated[str, tyro.conf.Suppress] = ""

    def __post_init__(self) -> None:
        # The command line checks choices itself; Python callers and a config.json may give anything.
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal:
                if value not in get_args(kind):
                    raise unknown(f"value of --{name.replace('_', '-')}", str(value), get_args(kind))
            elif wanted := kinds.fault(value, kind):
                raise UserError(f"--{name.replace('_', '-')} takes {wanted}, got {value!r}")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} must be {least} or more, got {getattr(self, name)}")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise UserError(f"--{name.replace('_', '-')} must be {most} or less, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning-rate must be positive, got {self.learning_rate}")
        for name, below in _BELOW.items():
            value = getattr(self, name)
            if not 0 <= value < below:
                bound = "1 or less" if below > 1 else "less than 1"
                raise UserError(f"--{name.replace('_', '-')} must be 0 or more and {bound}, got {value}")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight-decay must be 0 or more, got {self.weight_decay}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit must be 1 or more, got {self.limit}")
        for kind, names in (("tasks", self.tasks), ("sources", self.sources)):
            if not names or len(set(names)) != len(names):
                raise UserError(f"--{kind} must name one or more different {kind}, got {list(names)}")
        if self.cache_prefix and self.batch_norm != "frozen":
            raise UserError(
                "--cache-prefix computes the frozen stages once, but with --batch-norm batch they depend on the batch; "
                "give --batch-norm frozen, or --no-cache-prefix"
            )
        changes = [name for name in ("flip", "crop", "colour_jitter", "erase") if getattr(self, name)]
        if self.cache_prefix and changes:
            off = " ".join("--no-flip" if name == "flip" else f"--{name.replace('_', '-')} 0" for name in changes)
            raise UserError(
                "--cache-prefix computes the frozen stages once, so pictures can't be changed at random in each epoch; "
                f"give {off}, or --no-cache-prefix"
            )
        if self.balance != 1 and self.schedule != "mixed":
            raise UserError("--balance sets the shares of a mixed batch; give --schedule mixed, or --balance 1")
        if self.resume and self.overwrite:
            raise UserError("--resume continues a run and --overwrite deletes it; give only one of them")

    def require_effect(self, steps: int | None = None) -> None:
        """Refuses options that would have no effect in a new run. Runs of earlier versions may keep them.

        Args:
          steps: number of steps in the whole run, once it is known.

        Raises:
          UserError: an option would have no effect.
        """
        if self.warmup_steps and self.learning_rate_schedule == "constant":
            raise UserError(
                f"--warmup-steps {self.warmup_steps} needs a schedule that warms up; give --learning-rate-schedule "
                "cosine, or --warmup-steps 0"
            )
        # In a short run the loop shortens the recipe's own warm-up, with a line. It keeps one that the user set.
        asked = self.asked("warmup_steps", "heartbeat_s", "matmul_precision")
        if steps is not None and self.warmup_steps >= steps and "warmup_steps" in asked and not self.smoke:
            raise UserError(
                f"--warmup-steps {self.warmup_steps} is not less than the {steps} steps of the run; give fewer (at "
                "most half of the steps are used), or more --epochs"
            )
        if self.colour_jitter and all(task in TASKS and TASKS[task].about_colour for task in self.tasks):
            raise UserError(
                f"--colour-jitter does not change pictures with a colour label, and the only tasks are "
                f"{', '.join(self.tasks)}; give --colour-jitter 0"
            )

        if self.weights_key is not None and not self.weights_are_a_file:
            raise UserError(
                f"--weights-key is for a file, and --weights is {self.weights}; leave it out, or give a file"
            )
        if "heartbeat_s" in asked and not self.distributed:
            raise UserError(
                "--heartbeat-s is for one of several processes; give it to `facefeat launch`, or with --distributed"
            )
        if "matmul_precision" in asked and self.matmul_precision != "default" and self.dtype in ("bfloat16", "float64"):
            raise UserError(
                f"--matmul-precision {self.matmul_precision} is for float32 products, of which --dtype {self.dtype} "
                "has none; give --dtype float32, or --matmul-precision default"
            )

    @property
    def weights_are_a_file(self) -> bool:
        """Whether `weights` is a path, by its suffix, whether or not there is such a file."""
        return Path(self.weights).suffix in (".pth", ".pt", ".safetensors")

    def asked(self, *names: str) -> list[str]:
        """Returns those of the fields whose values are not the recipe's (without a recipe: not the default)."""
        own = load_recipe(self.recipe) if self.recipe else TrainConfig()
        return [name for name in names if getattr(self, name) != getattr(own, name)]

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def from_json(cls, values: dict[str, Any], *, where: str) -> TrainConfig:
        """Reads what `to_json` wrote.

        Raises:
          UserError: a field is unknown to this version, or a value is invalid. The message names the file, `where`.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if surplus := sorted(set(values) - known):
            raise UserError(
                f"{where} has fields that this version does not know: {', '.join(surplus)}. "
                "Use the version that wrote it"
            )
        listed = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        paths = {name: Path(values[name]) for name in ("run", "data_dir") if isinstance(values.get(name), str)}
        try:
            return cls(**{**values, **listed, **paths})
        except UserError as error:
            raise UserError(f"{where} can't be used: {error}") from error


def apply_smoke(config: TrainConfig) -> TrainConfig:
    """Returns the config; with `smoke`, reduced to about a minute on two CPU cores and without downloads.

    Drawn sources stay, `avatars` replaces the others, and random weights replace ImageNet's.
    """
    if not config.smoke:
        return config
    from facefeat_jax.data.builders import is_drawn  # imports TFDS, which reading a config does not need

    recipe = load_recipe(config.recipe) if config.recipe else None
    default_run = recipe.run if recipe else None
    shrunk = dataclasses.replace(
        config,
        # Don't overwrite the real run, unless the user named its folder.
        run=config.run if config.run != default_run else default_run.with_name(f"{default_run.name}-smoke"),
        sources=tuple(source for source in config.sources if is_drawn(source)) or ("avatars",),
        weights="random" if config.weights in ("imagenet", "DEFAULT") else config.weights,
        image_size=min(config.image_size, 32),
        batch_size=min(config.batch_size, 8),
        epochs=min(config.epochs, 2),
        limit=min(config.limit or 44, 44),  # not a multiple of the batch size, so that the last batch is short
        warmup_steps=min(config.warmup_steps, 2),
    )
    if recipe:
        _report_smoke_changes(config, recipe, shrunk)
    return shrunk


def _report_smoke_changes(given: TrainConfig, recipe: TrainConfig, shrunk: TrainConfig) -> None:
    """Prints the values that the user set and `smoke` replaces. It does not report the recipe's own values."""
    from facefeat_jax.system.progress import say

    for name in ("sources", "image_size", "batch_size", "epochs", "limit", "warmup_steps"):
        wanted, taken = getattr(given, name), getattr(shrunk, name)
        if wanted not in (taken, getattr(recipe, name)):
            say(f"--smoke uses --{name.replace('_', '-')} {_as_text(taken)} instead of {_as_text(wanted)}")


def _as_text(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _recipe_folder() -> Path:
    # A wheel has the recipes inside the package; a checkout has them beside it.
    package = Path(__file__).resolve().parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def list_recipes() -> list[str]:
    """Returns the names of the recipes."""
    return sorted(path.stem for path in _recipe_folder().glob("[!_]*.py"))


def load_recipe(name: str) -> TrainConfig:
    """Returns the config of a recipe.

    Raises:
      UserError: no recipe has this name.
    """
    if name not in list_recipes():
        raise unknown("recipe", name, list_recipes())
    path = _recipe_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"facefeat_jax_recipe_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.config(), recipe=name)
