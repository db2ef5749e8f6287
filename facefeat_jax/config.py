"""What a training run is told: one frozen dataclass, and how a recipe becomes one."""

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

# The least that each number may be.
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

# The most that it may be: more is a slip of the pen, or a file that was damaged.
_MOST = {
    "image_size": MAX_IMAGE_SIZE,
    "batch_size": 2**20,
    "feed_threads": 1024,
    "feed_prefetch": 4096,
    "seed": 2**31 - 1,
}

# Fractions, and what they must be below (of two of them, 1 is the most).
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
    """Everything that decides what a training run does. Recipes in `configs/` set it; `--field value` overrides it."""

    # --- Where
    run: Path = Path("runs/run")
    """Folder of the run: configuration, logs, checkpoints, results and report."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; the default is $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    # --- Data
    sources: tuple[str, ...] = ("fairface", "glasses", "apparel")
    """Prepared data sets to train on."""
    tasks: tuple[str, ...] = BASELINE_TASKS
    """Heads, in the order in which `sequential` trains them."""
    image_size: int = 224
    """Side in pixels to which pictures are resized; the aspect ratio is not kept."""
    decode: DecodePolicy = "upright"
    """How files become RGB. With `upright` EXIF rotation is applied, 16 bit scaled and transparency composited, with
    `as_notebook` none of these."""
    disjoint: tuple[str, ...] = ()
    """Groups, such as `identity`, of which nothing may be both trained on and validated: training pictures that share
    one with a validation picture are left out. Validation stays the same."""
    limit: int | None = None
    """Use only this many pictures of each split (spread evenly); for smoke runs."""

    # --- Model
    trunk: str = "resnet18"
    """Name of the trunk (`facefeat models` lists them)."""
    weights: str = "imagenet"
    """`imagenet` (downloaded once), the name of other published weights (`facefeat models` lists them), `random`, or
    the path of a .pth or .safetensors file."""
    weights_key: Annotated[str | None, tyro.conf.arg(aliases=["--key"])] = None
    """Which weights, where the file of --weights holds several sets, such as state_dict_ema."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "float32"
    """Of the computation. `auto` is bfloat16 on GPU and TPU (parameters, statistics and losses stay float32), and
    float32 on CPU."""
    param_dtype: DType = "float32"
    """Of parameters, statistics and optimizer moments. bfloat16 loses the small increments of Adam's second moment."""
    matmul_precision: MatmulPrecision = "default"
    """Of float32 products; JAX's default on recent GPUs is TF32."""
    deterministic: bool = False
    """On GPU, take only operations that give the same bits each time, and measure no alternatives: slower. On CPU they
    always do. Without it, a run that is resumed on GPU may end with other last digits."""

    # --- Training
    schedule: Literal["sequential", "mixed"] = "mixed"
    """In each epoch one task after the other, each validated after its own pass (`sequential`), or the pictures of all
    sources in one stream, each loss taken over the pictures that carry its label (`mixed`)."""
    trainable: tuple[str, ...] = ("all",)
    """Stages of the trunk that are trained, by name (`facefeat models` lists them), or `last` (the trunk's last block:
    `layer4` of a ResNet), `all` or `none`; heads always are."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """`batch`: all layers normalise with batch statistics and move their running ones, also in stages that are not
    trained (the notebook's rule). `frozen`: stages that are not trained use their running statistics."""
    batch_size: int = 32
    """Pictures per step. The last batch of a pass may be smaller."""
    epochs: int = 5
    """Passes over the training data."""
    learning_rate: float = 1e-4
    """Of Adam; the peak where there is a schedule."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` rises linearly for `warmup_steps` and decays to zero at the last step."""
    warmup_steps: int = 0
    """Steps of linear warm-up of the `cosine` schedule; at most half of the run's steps are taken for it."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Where a loss is infinite or not a number: `stop` there, naming the pictures; or `skip` the step (and those whose
    gradients are not finite), which leaves the weights as they are, and say so."""
    balance: float = 1.0
    """How much the size of a set counts in a `mixed` batch: the pictures that carry the labels of one set of heads get
    a share of every batch in proportion to their number to this power. 1 shows all pictures equally often, 0 all sets;
    between, pictures of small sets come more often. A pass has as many pictures whatever the shares."""
    weight_decay: float = 0.0
    """In each step kernels lose this share of themselves times the learning rate (AdamW); norms and biases don't."""
    ema: float = 0.0
    """Decay of a moving average of weights and statistics, which takes their place wherever the model is evaluated,
    saved or exported; 0.99 averages over some hundred steps. 0: none."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    flip: bool = False
    """Mirror each training picture left to right with probability one half."""
    crop: float = 0.0
    """The most of either side of a training picture that is cut away at random; the rest is enlarged."""
    colour_jitter: float = 0.0
    """How far brightness, contrast and saturation of a training picture may be multiplied from 1. A picture with a
    label that is a colour (shirt) keeps its colours."""
    erase: float = 0.0
    """Probability that a random rectangle of a training picture is painted over."""
    seed: int = 0
    """Of initial weights, shuffling and augmentation."""

    # --- Feed
    packed: Literal["auto", "on", "off"] = "auto"
    """`on`: decode and resize every picture once, into the cache folder, from where later runs take it too. `off`:
    decode in every pass. `auto`: once, if there is room."""
    feed: Literal["auto", "stream", "device"] = "auto"
    """`device`: all pictures lie on the device, and steps take them by number. `stream`: batches are put together on
    the host and sent ahead. The batches are the same. `auto` goes by the memory that is free, and says so."""
    cache_prefix: bool = False
    """Compute the output of the frozen stages once for each picture, and train from there. Needs frozen BatchNorm and
    pictures that are not changed at random."""
    steps_per_call: int = 0
    """Steps that one call of the compiled program takes. 0 chooses: 32 on GPU and TPU; on CPU 1, or 32 where the heads
    alone are trained from a cached prefix."""
    feed_threads: int = 4
    """Threads that put batches together."""
    feed_prefetch: int = 8
    """Batches held ready."""

    # --- Several processes
    distributed: bool = False
    """This process is one of several that train one model (`facefeat launch` sets it; docs/devices.md)."""
    heartbeat_s: int = 60
    """Seconds that one of several processes may be silent until it is taken for dead, and the others are ended."""

    # --- Logs and checkpoints
    log_every: int = 20
    """Steps between transfers of losses from the device; every step is logged."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one is also written at the end of each epoch, after Ctrl-C and after SIGTERM."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep. Two or more: where the newest is damaged, the one before is used."""
    keep_best: bool = False
    """Keep the checkpoint of the epoch with the best validation too: the highest accuracy, averaged over the heads.
    With `sequential` each head is measured after its own pass, before the trunk has moved on."""
    resume: bool = False
    """Go on from the run folder's newest checkpoint."""
    overwrite: bool = False
    """Delete what an earlier run left in the run folder."""
    smoke: bool = False
    """Run the whole path in about a minute, on a few drawn pictures and random weights; the result means nothing."""

    # --- Set when a recipe is loaded, not on the command line
    recipe: Annotated[str, tyro.conf.Suppress] = ""

    def __post_init__(self) -> None:
        # The command line gives one of the choices; Python callers and a config.json may give anything.
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
                "--cache-prefix computes the frozen stages once, so pictures can't be changed at random in each pass; "
                f"give {off}, or --no-cache-prefix"
            )
        if self.balance != 1 and self.schedule != "mixed":
            raise UserError("--balance sets the shares of a mixed batch; give --schedule mixed, or --balance 1")
        if self.resume and self.overwrite:
            raise UserError("--resume goes on with a run and --overwrite deletes it; give one of them")

    def require_effect(self, steps: int | None = None) -> None:
        """Refuses options of a new run that would change nothing; what an earlier version began with them stays.

        Args:
          steps: of the whole run, once they are known.

        Raises:
          UserError: there is such an option.
        """
        if self.warmup_steps and self.learning_rate_schedule == "constant":
            raise UserError(
                f"--warmup-steps {self.warmup_steps} needs a schedule that warms up; give --learning-rate-schedule "
                "cosine, or --warmup-steps 0"
            )
        # A recipe's own warm-up is cut to a short run, which the loop says; one that was asked for is not.
        asked = self.asked("warmup_steps", "heartbeat_s", "matmul_precision")
        if steps is not None and self.warmup_steps >= steps and "warmup_steps" in asked and not self.smoke:
            raise UserError(
                f"--warmup-steps {self.warmup_steps} is not less than the {steps} steps of the run; give fewer (at "
                "most half of the steps are taken for the warm-up), or more --epochs"
            )
        if self.colour_jitter and all(task in TASKS and TASKS[task].about_colour for task in self.tasks):
            raise UserError(
                f"--colour-jitter leaves pictures with a label that is a colour alone, and {', '.join(self.tasks)} is "
                "all that is trained; give --colour-jitter 0"
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
          UserError: there is a field that this version doesn't know, or a value that can't be; `where` names the file.
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
    """Returns the config shrunk to about a minute on two CPU cores, where `smoke` is set.

    It needs nothing that has to be downloaded: sources that are drawn stay, `avatars` stands in for the others, and
    random weights for ImageNet's.
    """
    if not config.smoke:
        return config
    from facefeat_jax.data.builders import is_drawn  # with TFDS, which reading a config does not need

    recipe = load_recipe(config.recipe) if config.recipe else None
    default_run = recipe.run if recipe else None
    shrunk = dataclasses.replace(
        config,
        # Not in the place of the real run, unless that was asked for.
        run=config.run if config.run != default_run else default_run.with_name(f"{default_run.name}-smoke"),
        sources=tuple(source for source in config.sources if is_drawn(source)) or ("avatars",),
        weights="random" if config.weights in ("imagenet", "DEFAULT") else config.weights,
        image_size=min(config.image_size, 32),
        batch_size=min(config.batch_size, 8),
        epochs=min(config.epochs, 2),
        limit=min(config.limit or 44, 44),  # not a multiple of the batch: the short last batch is part of the path
        warmup_steps=min(config.warmup_steps, 2),
    )
    if recipe:
        _say_what_smoke_changes(config, recipe, shrunk)
    return shrunk


def _say_what_smoke_changes(asked: TrainConfig, recipe: TrainConfig, shrunk: TrainConfig) -> None:
    """Says which values that were asked for are not taken; those of the recipe are what `smoke` is there to shrink."""
    from facefeat_jax.system.progress import say

    for name in ("sources", "image_size", "batch_size", "epochs", "limit", "warmup_steps"):
        wanted, taken = getattr(asked, name), getattr(shrunk, name)
        if wanted not in (taken, getattr(recipe, name)):
            say(f"--smoke takes --{name.replace('_', '-')} {_shown(taken)} in place of {_shown(wanted)}")


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _recipe_folder() -> Path:
    # In a wheel the recipes are installed inside the package; in a checkout they lie beside it.
    package = Path(__file__).resolve().parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def list_recipes() -> list[str]:
    """Returns the names of the recipes."""
    return sorted(path.stem for path in _recipe_folder().glob("[!_]*.py"))


def load_recipe(name: str) -> TrainConfig:
    """Returns the config that the recipe of that name makes.

    Raises:
      UserError: there is no such recipe.
    """
    if name not in list_recipes():
        raise unknown("recipe", name, list_recipes())
    path = _recipe_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"facefeat_jax_recipe_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.config(), recipe=name)
