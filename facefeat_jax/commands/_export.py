"""`facefeat export`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from facefeat_jax.exporting._formats import SUFFIXES
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import show, show_json
from facefeat_jax.system.text import format_size

if TYPE_CHECKING:
    from facefeat_jax.exporting._agreement import Agreement
    from facefeat_jax.exporting.int8 import Quantized


Format = Literal["torch", "onnx", "stablehlo"]


@dataclass(frozen=True)
class Arguments:
    """Writes a checkpoint of a run for other programs: PyTorch, ONNX runtimes, or whatever runs StableHLO."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    file: tyro.conf.Positional[Path]
    """The file to write: .pth, .pt or .safetensors (with the notebook's names), .onnx, or .stablehlo."""
    to: Format | None = None
    """Format of the file. The default goes by the file's suffix. `onnx` and `stablehlo` need the extra of that name."""
    int8: bool = False
    """Compute the trunk in int8, for CPUs: smaller, faster, not the same answers. Needs the run's data; refused where
    a loss of more than 0.3 points of accuracy is certain. For .onnx files."""
    overwrite: bool = False
    """Replace the file where it exists."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Writes the file and prints the class names in the order of the outputs; returns the exit code.

    Raises:
      UserError: the run can't be read, the file exists or can't be written, or its answers are not those of the run.
    """
    from facefeat_jax.runs.run_config import read_config

    read_config(arguments.run)  # before the slow imports
    file = arguments.file
    if file.exists() and not arguments.overwrite:
        raise UserError(f"{file} already exists; --overwrite replaces it, or give another file")
    named: dict[str, Format] = {suffix: form for form, suffix in SUFFIXES.items()}
    form: Format = arguments.to or named.get(file.suffix.lower(), "torch")
    lines: Iterable[str] = ()
    if arguments.int8:
        from facefeat_jax.exporting.int8 import export_int8

        if form != "onnx":
            raise UserError(f"--int8 writes ONNX; give a name that ends in .onnx in place of {file}")
        spec, found = export_int8(arguments.run, file, arguments.checkpoint)
        checked, lines = {"int8": asdict(found)}, _int8_lines(found)
    elif form == "torch":
        from facefeat_jax.exporting.conversion import export

        spec, checked = export(arguments.run, file, arguments.checkpoint), {}
    else:
        from facefeat_jax.exporting.portable import export_portable

        spec, agreement = export_portable(arguments.run, file, form, arguments.checkpoint)
        checked, lines = {"agreement": asdict(agreement)}, _lines(agreement)
    if arguments.json:
        show_json({"file": str(file), "classes": spec.classes, **checked})
    else:
        size = format_size(file.stat().st_size)
        show(f"wrote {file} ({size}); class names, in the order of the outputs:")
        show(*(f"  {task}: {', '.join(names)}" for task, names in spec.classes.items()))
        show(*lines)
    return 0


def _int8_lines(found: Quantized) -> Iterator[str]:
    from facefeat_jax.exporting.int8 import loss_line

    yield f"in float32: {format_size(found.float_bytes)}; ranges from {found.pictures} training pictures"
    for head in dict.fromkeys(loss.head for loss in found.losses):
        whole, *groups = (loss for loss in found.losses if loss.head == head)
        yield f"  {loss_line(whole)}"
        if groups:
            yield f"    largest loss of a group: {loss_line(max(groups, key=lambda loss: loss.before - loss.after))}"
    yield "temperatures and thresholds are fitted anew, to the answers in int8"


def _lines(agreement: Agreement) -> Iterator[str]:
    of = "of the run's validation" if agreement.are_own else "drawn"
    by_head = ", ".join(f"{task} {difference:.1e}" for task, difference in agreement.largest.items())
    yield (
        f"largest difference in probability from the run's weights in float32, on {agreement.pictures} pictures "
        f"({of}): {by_head}"
    )
    if agreement.from_run is not None:
        yield f"from the run itself, which computes in another format: {agreement.from_run:.1e}"
