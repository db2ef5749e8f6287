"""How near the smallest trunk of each family is to torchvision's and timm's, in float64, and writes the table.

    .venv-compare/bin/python scripts/lab/measure_equality.py --to docs/benchmarks/equality_of_trunks.md

`make compare` sets that environment up. What it calls is `python -m weights_conversion verify`, once with dropout and
stochastic depth off and once with torch's masks, and `parity/timm_side.py`. What a page has already is kept, so that
it can be made in several goes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import write_measured, write_results
from facefeat_jax.models import abstract, get_architecture
from facefeat_jax.models._dropout import Dropout
from facefeat_jax.system import environment, markdown
from facefeat_jax.system.main import run_and_exit
from facefeat_jax.system.progress import say
from parity import timm_side
from weights_conversion._records import differences
from weights_conversion.verify import TOLERANCE, Row, verify

SMALLEST = (
    *("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"),
    *("efficientnet_b0", "efficientnet_v2_s", "vit_b_32", "convnext_tiny"),
)
PACKAGES = ("facefeat-jax", "jax", "jaxlib", "flax", "numpy", "torch", "torchvision", "timm")
KINDS = ("evaluation", "training", "statistics", "gradients", "weights", "moved statistics")
SIZE, BATCH = 64, 4


@dataclass(frozen=True)
class Options:
    """What is compared, and where the results go."""

    trunks: tuple[str, ...] = SMALLEST
    """Trunks to hold against torchvision's."""
    cases: tuple[str, ...] = tuple(timm_side.CASES)
    """Networks to hold against timm's."""
    to: Path | None = None
    """The page of results, and a .json beside it."""


def _drops(name: str) -> bool:
    from flax import nnx

    trunk = abstract(get_architecture(name).build, num_classes=10)
    return any(isinstance(layer, Dropout) and layer.rate for _, layer in nnx.iter_modules(trunk))


def _largest(rows: list[Row]) -> dict[str, float]:
    """Returns the largest difference of each kind; of maps, features and logits, of all stages."""
    found = {row.what: row.differences["JAX float64"] for row in rows}
    return {
        kind: max(value for what, value in found.items() if what.partition(",")[0] == kind)
        for kind in KINDS
        if any(what.partition(",")[0] == kind for what in found)
    }


def measure(options: Options) -> dict[str, Any]:
    """Returns the results."""
    record = environment.record(environment.typed("python scripts/lab/measure_equality.py"), PACKAGES, devices="CPU")
    results: dict[str, Any] = {"torchvision": {}, "timm": {}}
    if options.to and (kept := options.to.with_suffix(".json")).exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        results = {side: before[side] for side in results}
    results |= record
    for name in options.trunks:
        for masks in (False, True) if _drops(name) else (False,):
            row = f"{name}, torch's masks" if masks else name
            if row not in results["torchvision"]:
                started = time.perf_counter()
                rows = verify(name, image_size=SIZE, batch_size=BATCH, dtypes=("float64",), dropping=masks)
                results["torchvision"][row] = _largest(rows)
                say(f"{row}: {results['torchvision'][row]} ({time.perf_counter() - started:.0f} s)")
                write_results(page(results), results, options.to)
    for case in options.cases:
        if case not in results["timm"]:
            found = {one.kind: one.largest for one in differences(*timm_side.run(case))}
            results["timm"][case] = {"name": timm_side.CASES[case][0], **found}
            say(f"timm, {case}: {found}")
            write_results(page(results), results, options.to)
    return results


def page(results: Mapping[str, Any]) -> str:
    """Returns the results as Markdown."""

    def cells(found: Mapping[str, Any], kinds: tuple[str, ...]) -> list[str]:
        return [f"{found[kind]:.1e}" if kind in found else "" for kind in kinds]

    rows = [(name, *cells(found, KINDS)) for name, found in results["torchvision"].items()]
    timms = [
        (case, found["name"], *cells(found, ("evaluation", "training", "statistics")))
        for case, found in results["timm"].items()
    ]
    return "\n".join(
        [
            "# Equality of the trunks",
            "",
            *environment.record_lines(results),
            "",
            f"The largest difference from torch in float64, relative to the largest value; {TOLERANCE:.0e} is allowed. "
            "Random weights, every tensor moved away from its start, and made-up pictures.",
            "",
            "## torchvision",
            "",
            f"The smallest of each family in full, on {BATCH} pictures of {SIZE} pixels: all stages, features and "
            "logits in evaluation and in training mode, statistics after one pass, gradients, weights and statistics "
            "after three steps of Adam. Dropout and stochastic depth are off, or, in a row of its own, on with the "
            "masks that torch drew. A trunk without batch normalisation has no statistics. `python -m "
            "weights_conversion verify NAME` prints it stage by stage ([for three of them](trunks.md)).",
            "",
            *markdown.table(("trunk", "evaluation", "training", "statistics", "gradients", "weights", "moved"), rows),
            "",
            *_missing(SMALLEST, results["torchvision"]),
            "## timm",
            "",
            "timm's own modules with random weights, which ours takes under timm's names: of each family and stem one "
            "with few blocks; logits in both modes, and the whole state after a pass in training mode.",
            "",
            *markdown.table(("family", "timm's name", "evaluation", "training", "state"), timms, texts=2),
            "",
            *_missing(timm_side.CASES, results["timm"]),
        ]
    )


def _missing(wanted: Iterable[str], found: Mapping[str, Any]) -> list[str]:
    left = [name for name in wanted if name not in found]
    return [f"Not measured yet: {', '.join(left)}.", ""] if left else []


def main() -> None:
    """Runs the command line."""
    write_measured(Options, __doc__, measure, page)


if __name__ == "__main__":
    run_and_exit(main)
