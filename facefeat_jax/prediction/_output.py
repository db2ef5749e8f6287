"""Predictions as text, JSON or CSV, one picture at a time: the columns of CSV, and the members of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, Literal

from facefeat_jax.prediction._videos import frame_of
from facefeat_jax.prediction.answers import HeadPrediction, Prediction
from facefeat_jax.system.tables import csv_row
from facefeat_jax.system.text import one_line

Format = Literal["text", "json", "jsonl", "csv"]


@dataclass(frozen=True)
class Column:
    """A column of the CSV form.

    Attributes:
      name: what the header says.
      cell: takes an answer and returns what its row says; None is an empty cell.
      is_new: whether versions before this one did not write it: a file without it is theirs, and can't be continued.
    """

    name: str
    cell: Callable[[Prediction], object]
    is_new: bool = False


def columns(tasks: Sequence[str], *, people: bool = False) -> list[Column]:
    """Returns the columns of the CSV form, in order; `as_json` has the members of the other forms.

    Args:
      tasks: the heads.
      people: whether people were looked for.
    """
    answers = [
        column
        for task in tasks
        for column in (
            _of_head(task, "", lambda head: head.label),
            _of_head(task, "_probability", lambda head: f"{head.probability:.6f}"),
        )
    ]
    return [
        Column("file", attrgetter("source")),
        *(_of_person() if people else ()),
        *answers,
        *(_of_head(task, "_unsure", lambda head: "yes" if head.unsure else "no") for task in tasks),
        Column("note", attrgetter("note"), is_new=True),
        Column("error", attrgetter("error")),
    ]


def _of_person() -> list[Column]:
    def side(name: str) -> Column:
        return Column(name, lambda prediction: prediction.person and f"{getattr(prediction.person.face, name):.0f}")

    number = Column("person", lambda prediction: prediction.person and prediction.person.number)
    return [number, *map(side, ("left", "top", "right", "bottom"))]


def _of_head(task: str, suffix: str, cell: Callable[[HeadPrediction], str]) -> Column:
    def of(prediction: Prediction) -> str | None:
        return cell(prediction.heads[task]) if task in prediction.heads else None

    return Column(task + suffix, of)


def lines(
    predictions: Iterable[Prediction], tasks: Sequence[str], form: Format, *, people: bool = False
) -> Iterator[str]:
    """Yields the lines of an output, each as soon as its answer is known.

    Args:
      predictions: the answers, in the order of the output.
      tasks: names of the heads, in the order of the columns.
      form: `text` is a line per picture, `json` one array, `jsonl` an object per picture, `csv` a header and a row per
        picture.
      people: whether people were looked for. Then there is a line or row for each of them, with the face's box, and
        one for a picture without people.

    Returns:
      The lines, without line ends. A row of CSV may hold line ends of a file's name.
    """
    table = columns(tasks, people=people)
    if form == "csv":
        yield csv_row((column.name for column in table), "")
    first = True
    for prediction in predictions:
        if form == "text":
            yield _text(prediction)
        elif form in ("json", "jsonl"):
            opening = "" if form == "jsonl" else "[" if first else ","
            yield opening + json.dumps(as_json(prediction))
        else:
            yield csv_row((column.cell(prediction) for column in table), "")
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
    if head.unlike:
        return "unsure (unlike the training pictures)"
    text = f"{head.label} {head.probability:.3f}"
    return f"unsure ({text})" if head.unsure else text


def name_in_json(name: str) -> dict[str, str]:
    """Returns the members that hold a file's name in JSON: `file`, and `file_bytes` if the name is not UTF-8.

    Python reads bytes that are not UTF-8 as surrogates, and some programs refuse a line with them. In `file`, U+FFFD
    replaces each such byte; `file_bytes` holds all bytes of the name in hexadecimal.
    """
    data = name.encode("utf-8", "surrogateescape")
    text = data.decode("utf-8", "replace")
    return {"file": text} if text == name else {"file": text, "file_bytes": data.hex()}


def name_from_json(answer: dict[str, Any]) -> str:
    """Returns the name from the members that `name_in_json` made."""
    if "file_bytes" in answer:
        return bytes.fromhex(answer["file_bytes"]).decode("utf-8", "surrogateescape")
    return str(answer["file"])


def as_json(prediction: Prediction, name: str | None = None) -> dict[str, object]:
    """Returns the members of a line of `--format jsonl`.

    Args:
      prediction: the answer.
      name: the name of the picture, where it is not the prediction's `source`.
    """
    return {**name_in_json(prediction.source if name is None else name), **_json(prediction)}


def _json(prediction: Prediction) -> dict[str, object]:
    if prediction.error:
        return {"error": prediction.error}
    time = {"time": frame[1]} if (frame := frame_of(prediction.source)) else {}
    heads = {task: _head_json(head) for task, head in prediction.heads.items()}
    found: dict[str, object] = {**time, "heads": heads}
    if prediction.person:
        found = {"person": prediction.person.number, "face": asdict(prediction.person.face), **found}
    if prediction.note:
        found["note"] = prediction.note
    return found


def _head_json(head: HeadPrediction) -> dict[str, object]:
    values = asdict(head)
    if not head.unlike:  # as earlier versions wrote it
        del values["unlike"]
    return values
