"""The JSON item of a checkpoint: what the model is, the validation results so far, and digests of the arrays.

Orbax writes it with the arrays. It is read without Orbax, so that damage is found before the item is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facefeat_jax.system import checked_json
from facefeat_jax.system.checked_json import Checked
from facefeat_jax.system.files import write_whole

FOLDER = "checkpoints"
CALIBRATION = "calibration"
LIKENESS = "likeness"
ONNX = "onnx"  # what `predict --runtime onnx` exports
ITEM = "about"
EXPORTED = "facefeat_model"
"""Under which an exported file holds what the model is."""
POOLED = "features"
"""The output of an exported program that is the trunk's pooled features."""

_FILE = "metadata"  # so Orbax's JsonSave calls it

# Of versions whose item had no digest.
_MEMBERS = {"spec": dict, "history": list, "seconds": float, "digests": dict}
_ENTRY = {"step": int, "epoch": int, "task": str, "accuracy": float, "loss": float}


def sealed(about: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Returns what is written: with the digests of the arrays, and a digest of the whole.

    Raises:
      ValueError: a number is infinite or NaN.
    """
    return checked_json.with_digest({**about, "digests": digests})


def read(checkpoint: Path) -> Checked:
    """Returns the item of a checkpoint's folder.

    Raises:
      OSError: it can't be read.
      ValueError: it is not what was written.
    """
    found = checked_json.read_checked(checkpoint / ITEM / _FILE)
    if not found.is_checked:
        _require_kinds(found.content)
    return found


def heads(run: Path) -> tuple[str, ...] | None:
    """Returns the heads of a run's newest checkpoint; None where its item can't be read."""
    step = newest_step(run)
    try:
        return None if step is None else tuple(read(run / FOLDER / step).content["spec"]["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_step(run: Path) -> str | None:
    """Returns the name of the folder of a run's newest checkpoint, which is its step; None where there is none."""
    steps = [path.name for path in (run / FOLDER).glob("*") if path.name.isdecimal()]
    return max(steps, key=int, default=None)


def is_exported(path: Path) -> bool:
    """Returns whether a path is an exported ONNX file and no run folder, by its name."""
    return path.suffix.lower() == ".onnx" and not path.is_dir()


def on_hub(run: Path) -> tuple[str, str | None] | None:
    """Returns name and revision of a model on the Hugging Face Hub, for `hf://owner/name[@revision]`; else None."""
    text = run.as_posix()  # which makes one stroke of two
    if not text.startswith("hf:/"):
        return None
    name, _, revision = text.removeprefix("hf:/").lstrip("/").partition("@")
    return name, revision or None


def replace(checkpoint: Path, about: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Writes the item of a complete checkpoint anew; whoever reads it finds the earlier item or this, whole.

    Raises:
      OSError: it can't be written; the earlier item stays.
    """
    write_whole(checkpoint / ITEM / _FILE, json.dumps(sealed(about, digests)).encode())


def _require_kinds(content: Mapping[str, Any]) -> None:
    # An unknown name is a damaged name; without this, a flipped bit in `digests` would switch the digests off.
    if unknown := sorted(content.keys() - _MEMBERS.keys()):
        raise ValueError(f"there is a member {unknown[0][:40]!r}")
    for name, kind in _MEMBERS.items():
        if name in content and not _is(content[name], kind):
            raise ValueError(f"{name} is of another kind")
    for entry in content.get("history", []):
        if not isinstance(entry, dict) or not all(_is(entry.get(name), kind) for name, kind in _ENTRY.items()):
            raise ValueError("an entry of the history is of another kind")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
