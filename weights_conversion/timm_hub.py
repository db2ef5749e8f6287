"""timm's weights on the Hugging Face Hub: which fit, and how pictures are made for them, as `config.json` says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from facefeat_jax.system.kinds import MAX_IMAGE_SIZE, Interpolation
from weights_conversion._timm_names import require_same
from weights_conversion.download import DownloadError
from weights_conversion.hub import fetch_from_hub, fetch_hub_weights, require_hub_name

_PREFIX = "hf-hub:"
# timm's own, where a configuration leaves them out.
_USUAL = {"input_size": (3, 224, 224), "crop_pct": 0.875}


@dataclass(frozen=True)
class HubPreprocessing:
    """How pictures are made for weights, in the words of `PublishedWeights`.

    Attributes:
      image_size: side in pixels of the square pictures.
      resize: pixels to which the shorter side of a picture is resized before the centre crop.
      interpolation: interpolation of that resizing.
      mean: per channel, subtracted from pictures in [0, 1].
      std: per channel, divided by.
    """

    image_size: int
    resize: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]


def hub_weights(weights: str | Path) -> tuple[str, str | None] | None:
    """Returns name and revision of `hf-hub:owner/name[@revision]`, as timm writes it; None for other weights.

    Raises:
      UserError: that is no name, or of an architecture that computes something else than ours.
    """
    text = str(weights)
    if not text.startswith(_PREFIX):
        return None
    name, _, revision = text.removeprefix(_PREFIX).partition("@")
    require_hub_name(name)
    owner, _, model = name.partition("/")
    if owner == "timm":
        require_same(model.partition(".")[0], name)
    return name, revision or None


def fetch_timm_weights(name: str, revision: str | None = None) -> Path:
    """Returns the file of weights of a model on the Hub, unless its configuration says that it is of another kind.

    Raises:
      UserError: its architecture computes something else than ours.
      DownloadError: it can't be had.
    """
    if not name.startswith("timm/"):  # there the name says it
        try:
            architecture = _config(name, revision).get("architecture")
        except DownloadError:  # there is none, or only the weights are kept here: fetching them says what is wrong
            architecture = None
        if isinstance(architecture, str):
            require_same(architecture, name)
    return fetch_hub_weights(name, revision)


def hub_preprocessing(name: str, revision: str | None = None) -> HubPreprocessing:
    """Returns how pictures are made for a model of timm's on the Hub, as its `config.json` says.

    Args:
      name: `owner/name`, such as `timm/resnet18.a1_in1k`.
      revision: as in `fetch_from_hub`.

    Raises:
      DownloadError: it can't be had, or says nothing that we can do.
    """
    try:
        return preprocessing_of(_config(name, revision)["pretrained_cfg"])
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise DownloadError(f"{name}: config.json does not say how its pictures were normalised and resized") from error


def preprocessing_of(given: Mapping[str, Any]) -> HubPreprocessing:
    """Reads timm's `pretrained_cfg` (`default_cfg`).

    Raises:
      ValueError, KeyError, TypeError, ArithmeticError: it says nothing that we can do.
    """
    mean, std = (tuple(float(value) for value in given[part]) for part in ("mean", "std"))
    channels, height, width = given.get("input_size", _USUAL["input_size"])
    resize = math.floor(height / float(given.get("crop_pct", _USUAL["crop_pct"])))
    sizes = [type(side) is int and 0 < side <= MAX_IMAGE_SIZE for side in (height, width, resize)]
    is_usable = all(map(math.isfinite, (*mean, *std))) and min(std) > 0 and all(sizes) and height == width
    if not is_usable or {len(mean), len(std), channels} != {3} or given["interpolation"] not in get_args(Interpolation):
        raise ValueError("no such pictures")
    return HubPreprocessing(height, resize, given["interpolation"], mean, std)


def _config(name: str, revision: str | None) -> dict[str, Any]:
    path = fetch_from_hub(name, "config.json", revision=revision).path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
