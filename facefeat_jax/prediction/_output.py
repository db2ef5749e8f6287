"""Predictions as text, JSON or CSV, a picture at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from facefeat_jax.prediction.answers import HeadPrediction, Prediction
from facefeat_jax.system.escape import one_line
from facefeat_jax.system.tables import csv_row

Format = Literal["text", "json", "jsonl", "csv"]


_PERSON = ("person", "left", "top", "right", "bottom")


def columns(tasks: Sequence[str], *, people: bool = False) -> list[str]:
    """Returns the header of the CSV form; `people` as in `lines`."""
    answers = [part for task in tasks for part in (task, f"{task}_probability")]
    answers += [f"{task}_unsure" for task in tasks]
    return ["file", *(_PERSON if people else ()), *answers, "note", "error"]


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
        yield csv_row(columns(tasks, people=people), "")
    first = True
    for prediction in predictions:
        if form == "text":
            yield _text(prediction)
        elif form in ("json", "jsonl"):
            opening = "" if form == "jsonl" else "[" if first else ","
            yield opening + json.dumps({**name_in_json(prediction.source), **_json(prediction)})
        else:
            pairs = [_cells(prediction, task) for task in tasks]
            who = _who(prediction) if people else []
            unsure = [_unsure(prediction, task) for task in tasks]
            answers = [cell for pair in pairs for cell in pair]
            cells = [prediction.source, *who, *answers, *unsure, prediction.note or "", prediction.error or ""]
            yield csv_row(cells, "")
        first = False
    if form == "json":
        yield "[]" if first else "]"


def _text(prediction: Prediction) -> str:
    if prediction.error:
        text = f"{prediction.source}: {prediction.error}"
    else:
        where = f" [{prediction.person.number}: {prediction.person.face}]" if prediction.person else ""
        heads = "  ".join(f"{task}: {_answer(head)}" for task, head in prediction.heads.items())
        note = f"  ({prediction.note})" if prediction.note else ""
        text = f"{prediction.source}{where}: {heads + note if heads else prediction.note}"
    return one_line(text, keep_bytes=True)


def _answer(head: HeadPrediction) -> str:
    text = f"{head.label} {head.probability:.3f}"
    return f"unsure ({text})" if head.unsure else text


def name_in_json(name: str) -> dict[str, str]:
    """Returns what stands in JSON for a file's name: `file`, and for one that is not UTF-8 its bytes in hexadecimal.

    What Python has for such bytes is no text to other programs, some of which refuse the whole line; in `file` a
    question mark in a diamond (U+FFFD) stands for each.
    """
    data = name.encode("utf-8", "surrogateescape")
    text = data.decode("utf-8", "replace")
    return {"file": text} if text == name else {"file": text, "file_bytes": data.hex()}


def name_from_json(answer: dict[str, Any]) -> str:
    """Returns the name of which `name_in_json` made an answer's."""
    if "file_bytes" in answer:
        return bytes.fromhex(answer["file_bytes"]).decode("utf-8", "surrogateescape")
    return str(answer["file"])


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
