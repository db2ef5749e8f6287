"""The config in a run folder, and whether a folder is a run: known before anything that takes long to import."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from facefeat_jax.config import CheckpointConfig, ProcessConfig, TrainConfig
from facefeat_jax.data.builders import know, list_sources
from facefeat_jax.data.dataset import default_data_dir, require_prepared
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError, unknown

CONFIG = "config.json"
LOCK = ".lock"

# What of config.json may be changed by hand (a run or its data were moved): nothing else depends on them.
EDITABLE = ("run", "data_dir")

# Fields that may change when a run is resumed: its place and how it is executed. They don't change its numbers, except
# for the last digits if another feed makes another program of the same step.
_MAY_CHANGE = {"run", "data_dir", "resume", "overwrite", "on_nonfinite"}
_MAY_CHANGE |= {"packed", "feed", "feed_threads", "feed_prefetch"}
_MAY_CHANGE |= {field.name for group in (CheckpointConfig, ProcessConfig) for field in dataclasses.fields(group)}


def read_config(folder: Path) -> TrainConfig:
    """Returns the config of a run folder.

    Raises:
      UserError: the folder is not there, is not a run, or its config can't be read.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file, not the folder of a run; name the run first, then what it is for")
    if not folder.is_dir():
        near = f"; runs beside it: {', '.join(_runs_beside(folder))}" if _runs_beside(folder) else ""
        raise UserError(f"there is no run folder {folder}{near}. `facefeat train` and `facefeat convert` make them")
    path = folder / CONFIG
    try:
        return TrainConfig.from_json(checked_json.read_checked(path, editable=EDITABLE).content, where=str(path))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not a run folder: it has no {CONFIG}. Give the folder that `facefeat train` made"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}); restore it or train again (only {' and '.join(EDITABLE)} may be edited "
            "by hand)"
        ) from error


def require_audit_target(target: str, data_dir: Path | None) -> None:
    """Looks whether there is such a run, or prepared data set, to audit.

    Raises:
      UserError: there is neither.
    """
    folder = Path(target)
    know([target], data_dir or default_data_dir())
    if (folder / CONFIG).is_file():
        read_config(folder)
    elif target in list_sources():
        require_prepared([target], data_dir or default_data_dir())
    elif folder.exists() or "/" in target:
        raise UserError(f"{target} is neither a data set ({', '.join(list_sources())}) nor a run folder")
    else:
        raise unknown("data set or run", target, list_sources())


def is_run(folder: Path) -> bool:
    """Returns whether a folder's config.json was written for a run, by whatever version."""
    try:
        values = checked_json.read(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"recipe", "run", "sources"} <= values.keys()


def check_folder(config: TrainConfig) -> None:
    """Refuses a folder that holds something else, or an earlier run without --resume or --overwrite.

    Raises:
      UserError: the folder can't be the run's.
    """
    folder = config.run
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give --run a folder")
    has_run = (folder / CONFIG).exists()
    if has_run and config.overwrite and not is_run(folder):
        # Other programs call their files config.json too.
        raise UserError(f"{folder / CONFIG} is not the config of a run; give --run another folder")
    if config.resume:
        earlier, now = read_config(folder).to_json(), config.to_json()
        changed = [name for name, value in earlier.items() if value != now[name] and name not in _MAY_CHANGE]
        if changed:
            raise UserError(
                f"--resume continues {folder} with its own settings, but these differ: {', '.join(changed)}"
            )
    elif has_run and not config.overwrite and not _is_unbegun(folder):
        raise UserError(
            f"{folder} already holds a run; --resume continues it, --overwrite deletes it, or give another --run"
        )
    elif not has_run and folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} holds something that is not a run; give --run another folder")


def _is_unbegun(folder: Path) -> bool:
    """Returns whether a run ended before it kept anything: it may be begun anew, with other settings too."""
    log, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    return (
        is_run(folder)
        and not (folder / "results.json").exists()
        and not (log.exists() and log.stat().st_size)
        and not (checkpoints.is_dir() and any(checkpoints.iterdir()))
    )


def _runs_beside(folder: Path) -> list[str]:
    if not folder.parent.is_dir():
        return []
    return sorted(str(path.parent) for path in folder.parent.glob(f"*/{CONFIG}"))[:5]
