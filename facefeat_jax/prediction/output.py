"""Predictions as text, JSON or CSV, a picture at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Literal

from facefeat_jax.prediction.predictor import Prediction

Format = Literal["text", "json", "csv"]


_PERSON = ("person", "left", "top", "right", "bottom")


def lines(
    predictions: Iterable[Prediction], tasks: Sequence[str], form: Format, *, people: bool = False
) -> Iterator[str]:
    """Yields the lines of an output; each is complete as soon as its picture is done.

    Args:
      predictions: in the order of the output.
      tasks: the heads, in the order of the columns.
      form: `text` is a line per picture; `json` one array; `csv` a header and a row per picture.
      people: whether people were looked for: then there is a line or row for each of them, with the face's box, and
        one for a picture without any.
    """
    if form == "csv":
        columns = [part for task in tasks for part in (task, f"{task}_probability")]
        yield _row(["file", *(_PERSON if people else ()), *columns, *(("note",) if people else ()), "error"])
    first = True
    for prediction in predictions:
        if form == "text":
            yield _text(prediction)
        elif form == "json":
            yield ("[" if first else ",") + json.dumps({"file": prediction.source, **_json(prediction)})
        else:
            cells = [_cells(prediction, task) for task in tasks]
            who = _who(prediction) if people else []
            note = [prediction.note or ""] if people else []
            answers = [cell for pair in cells for cell in pair]
            yield _row([prediction.source, *who, *answers, *note, prediction.error or ""])
        first = False
    if form == "json":
        yield "[]" if first else "]"


def _text(prediction: Prediction) -> str:
    if prediction.error:
        return f"{prediction.source}: {prediction.error}"
    where = f" [{prediction.person.number}: {prediction.person.face}]" if prediction.person else ""
    note = f"  ({prediction.note})" if prediction.note else ""
    if not prediction.heads:
        return f"{prediction.source}{where}: {prediction.note}"
    heads = "  ".join(f"{task}: {head.label} {head.probability:.3f}" for task, head in prediction.heads.items())
    return f"{prediction.source}{where}: {heads}{note}"


def _json(prediction: Prediction) -> dict[str, object]:
    if prediction.error:
        return {"error": prediction.error}
    found: dict[str, object] = {"heads": {task: asdict(head) for task, head in prediction.heads.items()}}
    if prediction.person:
        found = {"person": prediction.person.number, "face": asdict(prediction.person.face), **found}
    if prediction.note:
        found["note"] = prediction.note
    return found


def _who(prediction: Prediction) -> list[str]:
    if prediction.person is None:
        return [""] * len(_PERSON)
    return [str(prediction.person.number), *str(prediction.person.face).split(",")]


def _cells(prediction: Prediction, task: str) -> tuple[str, str]:
    head = prediction.heads.get(task)
    return ("", "") if head is None else (head.label, f"{head.probability:.6f}")


def _row(cells: Sequence[str]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()
