"""Predictions as text, JSON or CSV, a picture at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Literal

from facefeat_jax.prediction.predictor import HeadPrediction, Prediction

Format = Literal["text", "json", "jsonl", "csv"]


_PERSON = ("person", "left", "top", "right", "bottom")


def columns(tasks: Sequence[str], *, people: bool = False) -> list[str]:
    """Returns the header of the CSV form; `people` as in `lines`."""
    answers = [part for task in tasks for part in (task, f"{task}_probability")]
    answers += [f"{task}_unsure" for task in tasks]
    return ["file", *(_PERSON if people else ()), *answers, *(("note",) if people else ()), "error"]


def lines(
    predictions: Iterable[Prediction], tasks: Sequence[str], form: Format, *, people: bool = False
) -> Iterator[str]:
    """Yields the lines of an output; each is complete as soon as its picture is done.

    Args:
      predictions: in the order of the output.
      tasks: the heads, in the order of the columns.
      form: `text` is a line per picture; `json` one array; `jsonl` an object per picture; `csv` a header and a row per
        picture.
      people: whether people were looked for: then there is a line or row for each of them, with the face's box, and
        one for a picture without any.
    """
    if form == "csv":
        yield _row(columns(tasks, people=people))
    first = True
    for prediction in predictions:
        if form == "text":
            yield _text(prediction)
        elif form in ("json", "jsonl"):
            opening = "" if form == "jsonl" else "[" if first else ","
            yield opening + json.dumps({"file": prediction.source, **_json(prediction)})
        else:
            cells = [_cells(prediction, task) for task in tasks]
            who = _who(prediction) if people else []
            note = [prediction.note or ""] if people else []
            unsure = [_unsure(prediction, task) for task in tasks]
            answers = [cell for pair in cells for cell in pair]
            yield _row([prediction.source, *who, *answers, *unsure, *note, prediction.error or ""])
        first = False
    if form == "json":
        yield "[]" if first else "]"


def _text(prediction: Prediction) -> str:
    source = _shown(prediction.source)
    if prediction.error:
        return f"{source}: {prediction.error}"
    where = f" [{prediction.person.number}: {prediction.person.face}]" if prediction.person else ""
    note = f"  ({prediction.note})" if prediction.note else ""
    if not prediction.heads:
        return f"{source}{where}: {prediction.note}"
    heads = "  ".join(f"{task}: {_answer(head)}" for task, head in prediction.heads.items())
    return f"{source}{where}: {heads}{note}"


def _shown(name: str) -> str:
    """Returns a file's name for a terminal: one line, and no control characters (a name may come from anywhere)."""
    # What stands for bytes that are not UTF-8 goes out as it came in.
    return "".join(
        letter if letter.isprintable() or "\udc80" <= letter <= "\udcff" else ascii(letter)[1:-1] for letter in name
    )


def _answer(head: HeadPrediction) -> str:
    told = f"{head.label} {head.probability:.3f}"
    return f"unsure ({told})" if head.unsure else told


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


def _unsure(prediction: Prediction, task: str) -> str:
    head = prediction.heads.get(task)
    return "" if head is None else "yes" if head.unsure else "no"


def _row(cells: Sequence[str]) -> str:
    out = StringIO()
    # Python before 3.13 quotes line breaks only where they end lines, too.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n")
