"""The table of campaigns, and how one is run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefeat_jax.system import environment
from faults.report import FORMAT
from faults.tally import Tally


@dataclass(frozen=True)
class Campaign:
    """A campaign."""

    module: str  # of this package; its `run(work, count=..., seed=...)` returns a `Tally`
    count: int  # how many faults a full campaign tries
    are_inputs: bool  # whether its faults are bad inputs, rather than faults of the environment


CAMPAIGNS = {
    "pictures": Campaign("pictures", 6000, True),
    "labels": Campaign("labels", 4000, True),
    "weights": Campaign("weights", 8000, True),
    "load": Campaign("load", 20_000, False),
    "interruptions": Campaign("interruptions", 30, False),
    "storage": Campaign("storage", 30, False),
    "flips": Campaign("flips", 300, False),
}
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow", "safetensors", "tensorflow-datasets", "orbax-checkpoint")


def run_campaign(name: str, out: Path, *, count: int | None = None, seed: int, keep: bool = False) -> dict[str, Any]:
    """Runs a campaign in a folder of its own and writes `NAME.json`; returns what is in it.

    Args:
      name: a key of `CAMPAIGNS`.
      out: folder of the results.
      count: how many faults; None for a full campaign.
      seed: what they are drawn from.
      keep: leave the folder that it worked in.
    """
    campaign = CAMPAIGNS[name]
    count = campaign.count if count is None else count
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"faults-{name}-")).resolve()
    (work / "work").mkdir()
    started = time.monotonic()
    try:
        module = importlib.import_module(f"faults.{campaign.module}")
        tally: Tally = module.run(work / "work", count=count, seed=seed)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    command = f"python scripts/lab/run_faults.py run {name} --count {count} --seed {seed}"
    result = {
        "format": FORMAT,
        "campaign": name,
        "are_inputs": campaign.are_inputs,
        "is_full": count >= campaign.count,
        "count": count,
        "seed": seed,
        **environment.record(command, _PACKAGES, "CPU"),
        "seconds": round(time.monotonic() - started, 1),
        **dataclasses.asdict(tally),
    }
    (out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if keep:
        print(f"worked in {work}", file=sys.stderr)
    return result
