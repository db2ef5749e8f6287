"""The ONNX file that a run keeps of its newest checkpoint. Imports no JAX where it is there already."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from facefeat_jax.runs._about import CALIBRATION, LIKENESS, ONNX, newest_step
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say

_FORM = "2"  # of the files: one of an earlier version is exported again


def kept_onnx(run: Path) -> Path:
    """Returns the ONNX file of a run's newest checkpoint, in the run's folder; makes it where it is not there.

    Its name follows from the step, the calibration and the likeness.

    Raises:
      UserError: not a run, the folder can't be written, or the run can't be exported.
    """
    folder = run / ONNX
    newest = newest_step(run) or "none"
    digest = hashlib.sha256(_FORM.encode())
    for name in (CALIBRATION, LIKENESS):
        file = run / name / f"{newest}.json"
        digest.update(file.read_bytes() if file.exists() else b"none")
    file = folder / f"{newest}-{digest.hexdigest()[:12]}.onnx"
    if file.exists():
        return file
    from facefeat_jax.runs.run_config import read_config

    read_config(run)  # before the slow imports
    from facefeat_jax.exporting.portable import export_portable

    say(f"facefeat: exporting {run} to {file}, once")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} can't be made ({error.strerror}); export the run elsewhere, and give that file"
        ) from error
    try:
        export_portable(run, file, "onnx")
    except UserError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    for earlier in folder.glob("*.onnx"):
        if earlier != file:
            earlier.unlink(missing_ok=True)
    return file
