"""The answers of a shard as a file: Parquet, or a JSON object per line. The same answers give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

from facefeat_jax.prediction._output import as_json, name_in_json
from facefeat_jax.prediction.answers import Prediction
from facefeat_jax.shards._listing import Shard

Form = Literal["parquet", "jsonl"]

_GROUP = 4096  # rows of a row group

Row = tuple[int, Prediction]
"""The number of a picture in its shard, and an answer about it."""


def write_rows(
    file: IO[bytes], form: Form, shard: Shard, rows: Iterator[Row], tasks: Sequence[str], people: bool
) -> None:
    """Writes answers into an open file.

    Args:
      file: where.
      form: the format.
      shard: where the pictures are.
      rows: the answers, in order.
      tasks: the heads.
      people: whether people were looked for.
    """
    if form == "jsonl":
        for number, prediction in rows:
            row = {"shard": shard.name, "row": number, **as_json(prediction)}
            file.write(json.dumps(row).encode() + b"\n")
        return
    import pyarrow
    import pyarrow.parquet

    schema = _schema(tasks, people)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        held: list[dict[str, Any]] = []
        for number, prediction in rows:
            held.append(_cells(shard, number, prediction))
            if len(held) == _GROUP:
                writer.write_table(pyarrow.Table.from_pylist(held, schema))
                held.clear()
        if held:
            writer.write_table(pyarrow.Table.from_pylist(held, schema))


def _schema(tasks: Sequence[str], people: bool) -> Any:
    import pyarrow

    kinds = {"shard": pyarrow.string(), "row": pyarrow.int64(), "file": pyarrow.string()}
    if people:
        kinds |= {"person": pyarrow.int32(), **dict.fromkeys(("left", "top", "right", "bottom"), pyarrow.float64())}
    for task in tasks:
        kinds |= {
            task: pyarrow.string(),
            f"{task}_probability": pyarrow.float64(),
            f"{task}_unsure": pyarrow.bool_(),
        }
    return pyarrow.schema({**kinds, "note": pyarrow.string(), "error": pyarrow.string()})


def _cells(shard: Shard, number: int, prediction: Prediction) -> dict[str, Any]:
    cells: dict[str, Any] = {"shard": shard.name, "row": number, "file": name_in_json(prediction.source)["file"]}
    if person := prediction.person:
        face = person.face
        cells |= {
            "person": person.number,
            "left": face.left,
            "top": face.top,
            "right": face.right,
            "bottom": face.bottom,
        }
    for task, head in prediction.heads.items():
        cells |= {task: head.label, f"{task}_probability": head.probability, f"{task}_unsure": head.unsure}
    return {**cells, "note": prediction.note, "error": prediction.error}
