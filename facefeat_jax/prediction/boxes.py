"""Reading a file of boxes: who is where in which picture."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from facefeat_jax.errors import UserError
from facefeat_jax.prediction.crops import Box

COLUMNS = ("file", "left", "top", "right", "bottom")


def read_boxes(path: Path) -> dict[Path, list[Box]]:
    """Reads a CSV file with the columns `file`, `left`, `top`, `right`, `bottom`, one face a line; others are ignored.

    Boxes are in pixels of the picture as it is decoded, which with the policy `upright` is after turning it as EXIF
    says, and lie about a face as a Haar cascade's do: a square from the forehead to the chin.

    Args:
      path: the file. Names of pictures in it are those of the command, or relative to the file's folder.

    Returns:
      By picture (resolved), its boxes in the order of the lines.

    Raises:
      UserError: the file can't be read, has no such columns, or a line whose box is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); --boxes takes a CSV file with {','.join(COLUMNS)}") from error
    reader = csv.DictReader(io.StringIO(text))
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise UserError(
            f"{path} has no column {', '.join(missing)} in its first line; --boxes takes a CSV file with "
            f"{','.join(COLUMNS)}"
        )
    boxes: dict[Path, list[Box]] = {}
    for line in reader:
        try:
            box = Box(*(float(line[name]) for name in COLUMNS[1:]))
        except (TypeError, ValueError):
            box = Box(math.nan, math.nan, math.nan, math.nan)
        if not (math.isfinite(box.width) and math.isfinite(box.height) and box.width > 0 and box.height > 0):
            raise UserError(
                f"{path}, line {reader.line_num}: {','.join(str(line[name]) for name in COLUMNS[1:])} is no box; "
                "left must be less than right, and top less than bottom"
            )
        name = Path(line["file"])
        beside = path.parent / name
        boxes.setdefault((beside if beside.exists() else name).resolve(), []).append(box)
    return boxes
