"""Exports every trunk in every format, and writes how near the files' answers are to those of the model.

    python scripts/lab/export_trunks.py

The weights and layer scales are random, the statistics halfway to those of drawn pictures. How much a probability
varies over pictures is written beside: where all are alike, or all sure, a file that computes something else passes.
Each trunk takes pictures of its own size, or of --most-pixels where that is less and it takes other sizes. What is
measured is on disk after each trunk; trunks that the file of results has already are left out unless they are named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from facefeat_jax import avatars, create_model, list_models
from facefeat_jax.config import load_recipe
from facefeat_jax.evaluation.metrics import probabilities
from facefeat_jax.exporting._agreement import in_float32, logits_of
from facefeat_jax.exporting.conversion import convert, export
from facefeat_jax.exporting.portable import export_portable
from facefeat_jax.models.batch_norm import BatchNorm
from facefeat_jax.models.preprocessing import normalize
from facefeat_jax.models.registry import get_architecture
from facefeat_jax.runs.run_folder import create_from_weights, open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.files import write_whole
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say

PACKAGES = (*environment.PACKAGES, "onnx", "onnxruntime", "flatbuffers")
_LAST_CONV = ("project", "narrow")  # of EfficientNet's blocks
FORMATS = ("onnx", "stablehlo", "torch")
# So deep that in a picture that the statistics do not know features grow a thousandfold, and rounding with them: their
# statistics are those of the very pictures that an export's check draws.
_DEEPEST = ("efficientnet_v2_m", "efficientnet_v2_l")
CLASSES = {"gender": ("female", "male"), "shirt": ("black", "blue", "brown", "green", "pink", "red", "white", "yellow")}


@dataclasses.dataclass(frozen=True)
class Options:
    """Which trunks, and where the results go."""

    trunks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of trunks; the default is all that are not measured yet."""
    most_pixels: int = 128
    """The largest size of pictures, for trunks that take any."""
    out: Path = Path("docs/benchmarks/exports")
    """The results: a .json and a .md of this name."""


def pictures(size: int, count: int, seed: int = 2) -> np.ndarray:
    """Returns drawn pictures, uint8 `[count, size, size, 3]`."""
    drawn = (avatars.draw(seed, number).image for number in range(count))
    return np.stack([np.asarray(picture.resize((size, size))) for picture in drawn])


def size_of(trunk: str, most: int) -> int:
    """Returns the size of the pictures that a trunk is measured on."""
    found = get_architecture(trunk)
    return found.image_size if found.fixed_size else min(found.image_size, most)


def make_run(folder: Path, trunk: str, size: int) -> float:
    """Makes a run folder of a trunk with random weights; returns by how much its probabilities vary over pictures."""
    model = create_model(trunk, tasks=list(CLASSES), rngs=nnx.Rngs(0))
    random = np.random.RandomState(0)
    norms = {path: node for path, node in nnx.iter_modules(model) if isinstance(node, BatchNorm)}
    shown = pictures(size, 32, 1) if trunk in _DEEPEST else pictures(size, 16)
    images, answers = normalize(jnp.asarray(shown)), nnx.jit(lambda model, images: model(images))
    model.eval()
    for path, node in nnx.iter_graph(model):
        if path and path[-1] == "layer_scale":
            node.set_value(jnp.asarray(random.uniform(0.1, 1.0, node.shape), node.dtype))
    if norms:
        # Near those of pictures, as training leaves them: others make the features of a deep network vanish or
        # grow, and with them each probability is the same whatever the file computes.
        for path, norm in norms.items():
            norm.use_running_average, norm.momentum = False, 0.0
            if path[-1] == "bn3" or (path[-1] == "bn2" and (*path[:-1], "bn3") not in norms) or path[-2] in _LAST_CONV:
                # A block adds little to what it gets, as in trained networks: random ones as strong as their shortcut
                # make rounding a hundred times as large from end to end.
                norm.scale.set_value(norm.scale.get_value() * 0.3)
        answers(model, images)
        for norm in norms.values():
            norm.use_running_average = True
            # Halfway to the pictures': features keep their size, and no small difference between pictures is blown up.
            mean, var = norm.mean.get_value(), norm.var.get_value()
            norm.var.set_value((var + var.mean()) / 2 + mean**2 / 4)
            norm.mean.set_value(mean / 2)
    found = [probabilities(np.asarray(logits, np.float64)) for logits in answers(model, images).values()]
    spec = ModelSpec(trunk, CLASSES, size, "upright", "random")
    create_from_weights(folder, spec, model, load_recipe("baseline").replace(run=folder, data_dir=folder / "nowhere"))
    return max(float(np.ptp(values, axis=0).max()) for values in found)


def measure(trunk: str, size: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each format."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spread = make_run(folder / "run", trunk, size)
        for form in FORMATS:
            file = folder / f"model.{'safetensors' if form == 'torch' else form}"
            started = time.perf_counter()
            if form == "torch":
                export(folder / "run", file)
                count, largest = 8, torch_difference(folder, file)
            else:
                _, agreement = export_portable(folder / "run", file, form)
                count, largest = agreement.pictures, max(agreement.largest.values())
            yield {
                "trunk": trunk,
                "format": form,
                "size": size,
                "pictures": count,
                "spread": spread,
                "largest": largest,
                "bytes": file.stat().st_size,
                "seconds": round(time.perf_counter() - started, 1),
            }
            file.unlink()


def torch_difference(folder: Path, file: Path) -> float:
    """Returns the largest difference in the logits of a file's model, taken back, from its run's."""
    convert(file, folder / "back")
    runs = [open_run(folder / name) for name in ("run", "back")]
    rows = pictures(runs[0].spec.image_size, 8)
    own, back = (logits_of(*in_float32(run.model, run.spec))(rows) for run in runs)
    return max(float(np.abs(own[task] - back[task]).max()) for task in CLASSES)


def report(result: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""
    by_trunk = {
        trunk: {row["format"]: row for row in result["rows"] if row["trunk"] == trunk} for trunk in list_models()
    }
    rows = [
        (
            trunk,
            found["onnx"]["size"],
            f"{found['onnx']['spread']:.2g}",
            *(f"{found[form]['largest']:.1e}" for form in FORMATS),
            _megabytes(found),
        )
        for trunk, found in by_trunk.items()
        if found.keys() == set(FORMATS)
    ]
    left_out = [trunk for trunk, found in by_trunk.items() if found.keys() != set(FORMATS)]
    lines = [
        "# Exports of all trunks",
        "",
        *environment.record_lines(result),
        "",
        "The largest difference in probability between an exported file and the same weights in float32, by head and "
        "picture; 1e-5 is the limit, above which no file is written ([Exporting](../exporting.md)). ONNX is run by "
        "ONNX Runtime, StableHLO by JAX, both on CPU; a torch file is converted back, and its logits compared. "
        "Weights and layer scales are random, statistics halfway to those of drawn pictures. *Varies*: by how much a "
        "class's probability differs at most between 16 pictures. Of the two deepest EfficientNets the statistics are "
        "those of the check's own pictures: in others their features grow a thousandfold, and rounding with them.",
        "",
        *markdown.table(("trunk", "pixels", "varies", "ONNX", "StableHLO", "torch", "MB"), rows),
        "",
    ]
    if left_out:
        lines += [f"Not measured yet: {', '.join(left_out)}.", ""]
    return "\n".join(lines)


def _megabytes(found: Mapping[str, Any]) -> str:
    return f"{found['onnx']['bytes'] / 1e6:,.0f}"


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,))
    file, rows = options.out.with_suffix(".json"), []
    with contextlib.suppress(FileNotFoundError):
        rows = json.loads(file.read_text())["rows"]
    done = {row["trunk"] for row in rows}
    for trunk in options.trunks or [name for name in list_models() if name not in done]:
        rows = [row for row in rows if row["trunk"] != trunk]
        for row in measure(trunk, size_of(trunk, options.most_pixels)):
            rows.append(row)
            say(f"{trunk}, {row['format']}: {row['largest']:.1e} in {row['seconds']} s")
        typed = environment.typed("python scripts/lab/export_trunks.py")
        result = {**environment.record(typed, PACKAGES, devices="CPU"), "rows": rows}
        write_whole(file, (json.dumps(result, indent=1) + "\n").encode())
        write_whole(options.out.with_suffix(".md"), report(result).encode())
        jax.clear_caches()


if __name__ == "__main__":
    run_and_exit(main)
