"""The page of an audit, with contact sheets, and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from facefeat_jax.data.images import decode
from facefeat_jax.evaluation.audit import Audit
from facefeat_jax.reporting._pages import inlined, render
from facefeat_jax.runs.run_folder import write_file, write_json
from facefeat_jax.system.tables import csv_table
from facefeat_jax.system.text import format_accuracy, format_area

SHOWN = 24
"""Pictures of a contact sheet, and pairs that are shown."""

_SIDE = 160  # pixels of the longer side of pictures that are shown


def write_audit(made: Audit, out: Path) -> None:
    """Writes what an audit found into a folder: `audit.html` with contact sheets, `audit.json` and CSV tables.

    Raises:
      UserError: a file can't be written.
    """
    write_json(out / "audit.json", made.to_json())
    header = ["kind", "bits", "levels", "same_person", "first", "second", "splits", "conflicts"]
    yes_no = {None: "", True: "yes", False: "no"}
    rows: list[list[Any]] = []
    for pair in made.doubles:
        what = [pair.kind, pair.bits, pair.levels, yes_no[pair.same_person]]
        rows.append([*what, pair.first, pair.second, " ".join(pair.splits), " ".join(pair.conflicts)])
    write_file(out / "duplicates.csv", csv_table(header, rows).encode())
    listed = [suspect for of_head in made.suspects.values() for found in of_head.values() for suspect in found]
    if made.suspects:
        names = ["head", "split", "file", "label", "answer", "probability", "loss", "rank", "confident"]
        rows = [[*(getattr(suspect, name) for name in names[:-1]), yes_no[suspect.confident]] for suspect in listed]
        write_file(out / "highest_loss.csv", csv_table(names, rows).encode())
    write_file(out / "audit.html", render("audit.html.j2", _context(made)).encode())


def _context(made: Audit) -> dict[str, Any]:
    names = {split: {part.name(index): index for index in range(len(part))} for split, part in made.examples.items()}

    def picture(split: str, index: int) -> str:
        image = decode(made.examples[split].read(index), "upright")
        image.thumbnail((_SIDE, _SIDE))
        return inlined(np.asarray(image))

    doubles = [
        {
            "images": [
                picture(split, names[split][name])
                for split, name in zip(pair.splits, (pair.first, pair.second), strict=True)
            ],
            "files": [pair.first, pair.second],
            "what": {"file": "the same file", "pixels": "the same pixels", "near": "nearly the same"}[pair.kind],
            "across": pair.across,
            "conflicts": ", ".join(pair.conflicts),
        }
        for pair in made.doubles[:SHOWN]
    ]
    sheets = [
        {
            "head": head,
            "split": split,
            "pictures": [
                {**asdict(suspect), "image": picture(split, suspect.index), "label": suspect.label.replace("_", " ")}
                | {"answer": suspect.answer.replace("_", " "), "probability": format_area(suspect.probability, 2)}
                for suspect in found[:SHOWN]
            ],
            "count": len(found),
            "confident": sum(suspect.confident for suspect in found),
        }
        for head, of_head in made.suspects.items()
        for split, found in of_head.items()
    ]
    return {
        "title": made.name,
        "kind": "Data audit",
        "data": ", ".join(made.data),
        "notes": made.notes,
        "balance": _balance_lines(made.balance),
        "links": [
            {"first": link.first, "second": link.second, "strength": f"{link.strength:.2f}", "counts": link.counts}
            for link in made.links[:8]
        ],
        "counts": made.counts(),
        "doubles": doubles,
        "persons_across": made.persons_across,
        "sheets": sheets,
    }


def _balance_lines(balance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a line for each class and group: its kind (in the first of each), its name, its count in each split."""
    kinds: dict[str, dict[str, None]] = {}
    for of_split in balance.values():
        for kind, counts in (*of_split["classes"].items(), *of_split["groups"].items()):
            kinds.setdefault(kind, {}).update(dict.fromkeys(counts))
    lines = []
    for kind, values in kinds.items():
        for number, value in enumerate(values):
            counts = []
            for of_split in balance.values():
                found = {**of_split["groups"].get(kind, {}), **of_split["classes"].get(kind, {})}
                total = sum(found.values())
                share = found.get(value, 0) / max(total, 1)
                counts.append(f"{found.get(value, 0):,} ({format_accuracy(share, 0)})")
            name = value.replace("_", " ") or "not known"
            lines.append({"kind": "" if number else kind, "span": len(values), "value": name, "counts": counts})
    return lines
