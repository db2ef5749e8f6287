"""The configuration of a training run: groups of settings, which recipes and the command line fill."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from facefeat_jax.config._checks import Bounds, Checked, option
from facefeat_jax.config.fields import (
    AugmentationConfig,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    NumericsConfig,
    OptimizerConfig,
    PipelineConfig,
    ProcessConfig,
)
from facefeat_jax.system.errors import UserError


@dataclass(frozen=True)
class TrainConfig(Checked):
    """The settings of a training run. Recipes in `configs/` set them; `--field value` overrides the recipe.

    Each field's name is unique, so the command line, `config.json` and `replace` use it without its group.
    """

    run: Path = Path("runs/run")
    """Folder of the run: configuration, logs, checkpoints, results and report."""
    seed: Annotated[int, Bounds(least=0), Bounds(most=2**31 - 1)] = 0
    """Seed of the initial weights, shuffling and augmentation."""
    resume: bool = False
    """Resume from the newest checkpoint in the run folder."""
    overwrite: bool = False
    """Delete an earlier run in the run folder."""
    smoke: bool = False
    """Run the whole path in about a minute, on a few drawn pictures and random weights. The result means nothing."""
    recipe: Annotated[str, tyro.conf.Suppress] = ""  # set when a recipe is loaded, not on the command line

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    numerics: NumericsConfig = field(default_factory=NumericsConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    processes: ProcessConfig = field(default_factory=ProcessConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        # What lies within one group is checked there.
        if self.resume and self.overwrite:
            raise UserError("--resume continues a run and --overwrite deletes it; give only one of them")
        if self.pipeline.cache_prefix and self.model.batch_norm != "frozen":
            raise UserError(
                "--cache-prefix computes the frozen stages once, but with --batch-norm batch they depend on the batch; "
                "give --batch-norm frozen, or --no-cache-prefix"
            )
        if self.pipeline.cache_prefix and self.augmentation.changes:
            off = " ".join(
                option(f"no_{name}") if getattr(self.augmentation, name) is True else f"{option(name)} 0"
                for name in self.augmentation.changes
            )
            raise UserError(
                "--cache-prefix computes the frozen stages once, so pictures can't be changed at random in each epoch; "
                f"give {off}, or --no-cache-prefix"
            )

    def replace(self, **values: Any) -> TrainConfig:
        """Returns a copy with other values for some fields: `config.replace(run=Path("runs/two"), epochs=2)`.

        Args:
          **values: by the name of the field, whatever group it is in.

        Raises:
          UserError: there is no such field, or a value is invalid.
        """
        if surplus := sorted(values.keys() - _groups().keys()):
            raise UserError(
                f"this version has no setting {', '.join(surplus)}; `facefeat train RECIPE --help` lists all of them"
            )
        return _from_flat({**self.flat(), **values})

    def flat(self) -> dict[str, Any]:
        """Returns the value of every field by its name, without the groups."""
        return {name: getattr(getattr(self, group) if group else self, name) for name, group in _groups().items()}

    def to_json(self) -> dict[str, Any]:
        """Returns `flat` as JSON values: what `config.json` of a run holds, beside its digest."""
        return json.loads(json.dumps(self.flat(), default=str))

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, where: str) -> TrainConfig:
        """Reads what `to_json` wrote. Fields that an earlier version did not have yet get their defaults.

        Raises:
          UserError: a field is unknown to this version, or a value is invalid. The message names the file, `where`.
        """
        if surplus := sorted(values.keys() - _groups().keys()):
            raise UserError(
                f"{where} has fields that this version does not know: {', '.join(surplus)}. "
                "Use the version that wrote it"
            )
        try:
            return _from_flat(values)
        except UserError as error:
            raise UserError(f"{where} can't be used: {error}") from error


def _from_flat(values: Mapping[str, Any]) -> TrainConfig:
    """Returns the config with values by the names of the fields, and defaults for the rest."""
    grouped: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in values.items():
        grouped[_groups()[name]][name] = value
    own, kinds = grouped.pop("", {}), get_type_hints(TrainConfig)
    return TrainConfig(**own, **{group: kinds[group](**fields) for group, fields in grouped.items()})


@functools.cache
def _groups() -> dict[str, str]:
    """Returns the group of each field by the field's name; the config's own have none (empty)."""
    groups = {}
    for name, kind in get_type_hints(TrainConfig).items():
        if dataclasses.is_dataclass(kind):
            groups.update({one.name: name for one in dataclasses.fields(kind)})
        else:
            groups[name] = ""
    return groups
