"""Writes the golden files anew, from PyTorch (extra `compare`, Python 3.11):

    python tests/golden/regenerate.py

Only wanted when a case of `scripts/lab/parity/golden.py` changes. They hold what torch 2.13 gave on a CPU in float64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = Path(__file__).resolve().parent / "files"


def names() -> dict[str, list[int]]:
    """Returns a checksum of the names and shapes of torchvision's model of each architecture that it has."""
    import torch

    from facefeat_jax.models.registry import ARCHITECTURES
    from parity.golden import names_checksum
    from pytorch_baseline.vision import torchvision

    with torch.device("meta"):
        published = [name for name, architecture in ARCHITECTURES.items() if architecture.published]
        models = {name: getattr(torchvision.models, name)(weights=None) for name in published}
    return {
        name: names_checksum({tensor: tuple(value.shape) for tensor, value in model.state_dict().items()})
        for name, model in models.items()
    }


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "lab")]
    from parity import golden, torch_side
    from parity.cases import multi_task_weights
    from parity.trunks import SMALL_TRUNKS

    FILES.mkdir(exist_ok=True)
    for name, training in golden.FORWARD.items():
        weights = multi_task_weights(golden.FORWARD_SEED)
        record = torch_side.activations(weights, golden.forward_pictures(), training=training)
        golden.write(FILES / f"{name}.npz", record)
    for name, case in golden.TRAINING.items():
        golden.write(FILES / f"{name}.npz", torch_side.train(case), checksum=golden.fingerprint(case))
    for name, trunk in SMALL_TRUNKS.items():
        golden.write(FILES / f"trunk_{name}.npz", trunk.run("torch"))
    (FILES / "names.json").write_text(json.dumps(names(), indent=1) + "\n")
    for path in sorted(FILES.glob("*.npz")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
