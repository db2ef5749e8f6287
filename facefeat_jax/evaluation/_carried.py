"""What a torch file that `facefeat export` wrote says of its model, beside the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facefeat_jax.evaluation.calibration import Calibration
from facefeat_jax.runs._about import EXPORTED
from facefeat_jax.runs._head_calibration import heads_from_json
from facefeat_jax.runs._head_likeness import Likeness
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import checked_json
from facefeat_jax.system.errors import UserError

LIKENESS_KEY = "facefeat_likeness"
LONGEST = 1 << 20
"""Characters of a description, at most."""

_LONGEST_LIKENESS = 1 << 24


@dataclass(frozen=True)
class Carried:
    """All that decides a model's answers, but its weights.

    Attributes:
      spec: what the model is.
      calibration: of its heads.
      likeness: what its training pictures are like.
    """

    spec: ModelSpec
    calibration: Calibration | None
    likeness: Likeness | None


def carried(metadata: Mapping[str, str], source: object) -> Carried:
    """Reads the metadata of a file that `facefeat export` wrote.

    Args:
      metadata: of the file (`weights_conversion.read_metadata`).
      source: what messages call it.

    Raises:
      UserError: they are not what was written.
    """
    where, text = f"the description of the model in {source}", metadata[EXPORTED]
    try:
        if len(text) > LONGEST:
            raise ValueError("it is too long")
        content = checked_json.checked(checked_json.parse(text)).content
        spec = ModelSpec.from_json(content.get("spec"), where="its model")
        if missing := [field.name for field in dataclasses.fields(spec) if field.name not in content["spec"]]:
            raise ValueError(f"its model lacks {', '.join(missing)}")
        heads = content.get("calibration")
        calibration = None if heads is None else Calibration(0, heads_from_json(heads))
        likeness = _likeness(metadata, spec)
        if not all(is_class_names(names) for names in spec.classes.values()) or not spec.weights.isprintable():
            raise ValueError("a name in it is not printable text")
        if calibration and not calibration.heads.keys() <= spec.classes.keys():
            raise ValueError("it calibrates heads that the model does not have")
    except (ValueError, UserError) as error:
        raise UserError(
            f"{where} can't be read ({error}); export it again, or give the weights alone (torch.save(state_dict))"
        ) from error
    return Carried(spec, calibration, likeness)


def _likeness(metadata: Mapping[str, str], spec: ModelSpec) -> Likeness | None:
    """Returns what a file says of the training pictures; None in files of earlier versions.

    Raises:
      ValueError: it is not what was written.
    """
    text = metadata.get(LIKENESS_KEY)
    if text is None:
        return None
    if len(text) > _LONGEST_LIKENESS:
        raise ValueError("its description of the training pictures is too long")
    found = Likeness.from_json(checked_json.checked(checked_json.parse(text)).content, tasks=spec.classes)
    return dataclasses.replace(found, step=0)


def is_class_names(names: Any) -> bool:
    """Returns whether these are what `export` writes: names that differ, and that a terminal shows as they are."""
    return (
        isinstance(names, list | tuple)
        and all(isinstance(name, str) and name and name.isprintable() for name in names)
        and len(set(names)) == len(names)
    )
