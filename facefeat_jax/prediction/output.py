"""Predictions as text, JSON or CSV, a picture at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Literal

from facefeat_jax.prediction.predictor import HeadPrediction, Prediction

Format = Literal["text", "json", "csv"]


def lines(predictions: Iterable[Prediction], tasks: Sequence[str], form: Format) -> Iterator[str]:
    """Yields the lines of an output; each is complete as soon as its picture is done.

    Args:
      predictions: in the order of the output.
      tasks: the heads, in the order of the columns.
      form: `text` is a line per picture; `json` one array; `csv` a header and a row per picture.
    """
    if form == "csv":
        columns = [part for task in tasks for part in (task, f"{task}_probability")]
        yield _row(["file", *columns, "error", *(f"{task}_unsure" for task in tasks)])
    first = True
    for prediction in predictions:
        if form == "text":
            yield _text(prediction)
        elif form == "json":
            yield ("[" if first else ",") + json.dumps({"file": prediction.source, **_json(prediction)})
        else:
            cells = [_cells(prediction, task) for task in tasks]
            unsure = [_unsure(prediction, task) for task in tasks]
            found = [cell for pair in cells for cell in pair]
            yield _row([prediction.source, *found, prediction.error or "", *unsure])
        first = False
    if form == "json":
        yield "[]" if first else "]"


def _text(prediction: Prediction) -> str:
    if prediction.error:
        return f"{prediction.source}: {prediction.error}"
    heads = "  ".join(f"{task}: {_answer(head)}" for task, head in prediction.heads.items())
    return f"{prediction.source}: {heads}"


def _answer(head: HeadPrediction) -> str:
    told = f"{head.label} {head.probability:.3f}"
    return f"unsure ({told})" if head.unsure else told


def _json(prediction: Prediction) -> dict[str, object]:
    if prediction.error:
        return {"error": prediction.error}
    return {"heads": {task: asdict(head) for task, head in prediction.heads.items()}}


def _cells(prediction: Prediction, task: str) -> tuple[str, str]:
    head = prediction.heads.get(task)
    return ("", "") if head is None else (head.label, f"{head.probability:.6f}")


def _unsure(prediction: Prediction, task: str) -> str:
    head = prediction.heads.get(task)
    return "" if head is None else "yes" if head.unsure else "no"


def _row(cells: Sequence[str]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()
