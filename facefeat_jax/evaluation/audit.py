"""The audit of a data set, or of a run with its data: likely wrong labels, duplicates, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats.contingency import association

from facefeat_jax.data.dataset import default_data_dir, open_split
from facefeat_jax.data.examples import IDENTITY, UNKNOWN, Examples, count_data
from facefeat_jax.evaluation._confident_learning import confident_errors, ranks
from facefeat_jax.evaluation._duplicates import Pair, find_pairs, take_prints
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.evaluate import answers_on
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.evaluation.slices import MAX_VALUES
from facefeat_jax.runs.run_config import require_audit_target
from facefeat_jax.runs.run_folder import CONFIG, open_run
from facefeat_jax.runs.unseen import halves
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say

LISTED = 1000
"""Pictures with the highest loss that are listed, of each head and split."""

_SPLITS = ("train", "val")
_KINDS = ("file", "pixels", "near")  # of duplicates


@dataclass(frozen=True)
class Suspect:
    """A picture whose label the model contradicts.

    Attributes:
      head: the head.
      split: `train` or `val`.
      index: the picture's number in its split.
      file: where it came from.
      label: its label.
      answer: class that the model predicts.
      probability: probability of the answer.
      loss: cross-entropy of the label.
      rank: place of the label by confident learning (`_confident_learning.ranks`); 1 is the most likely wrong one.
      confident: whether it is a confident error there.
    """

    head: str
    split: str
    index: int
    file: str
    label: str
    answer: str
    probability: float
    loss: float
    rank: int
    confident: bool


@dataclass(frozen=True)
class Double:
    """A pair of duplicate pictures.

    Attributes:
      kind: as in `_duplicates.Pair`.
      first: where the first came from.
      second: where the second came from.
      splits: splits of both pictures.
      bits: in which their perceptual hashes differ.
      levels: mean difference of their thumbnails' colours, of 255.
      same_person: whether the data set says that it is the same person; None where it does not know.
      conflicts: heads of which they have different labels.
    """

    kind: str
    first: str
    second: str
    splits: tuple[str, str]
    bits: int
    levels: float
    same_person: bool | None
    conflicts: tuple[str, ...]

    @property
    def across(self) -> bool:
        """Whether the first is in another split than the second."""
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class Link:
    """How far two labels or groups go together.

    Attributes:
      first: a head, or a group.
      second: another head or group.
      strength: Cramér's V, from 0 (independent) to 1 (one tells the other).
      counts: pictures, by the value of `first`, then of `second`.
    """

    first: str
    second: str
    strength: float
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
      name: name of the data set or run.
      data: the data sets.
      balance: per split, pictures by class and by group, as in `results.json`.
      links: heads and groups that go together, the strongest first.
      doubles: duplicate pictures.
      persons_across: persons that are in both splits, and their validation pictures; None where none are numbered.
      suspects: pictures with the highest loss, per head and split; none without a model.
      examples: the pictures, per split.
      notes: lines: how the data differ from those that the run was trained on.
    """

    name: str
    data: tuple[str, ...]
    balance: dict[str, Any]
    links: list[Link]
    doubles: list[Double]
    persons_across: tuple[int, int] | None
    suspects: dict[str, dict[str, list[Suspect]]]
    examples: Mapping[str, Examples]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        return {
            "name": self.name,
            "data": list(self.data),
            "notes": list(self.notes),
            "balance": self.balance,
            "links": [asdict(link) for link in self.links],
            "duplicates": {"counts": self.counts(), "pairs": [asdict(pair) for pair in self.doubles]},
            "persons_across": list(self.persons_across) if self.persons_across else None,
            "highest_loss": {
                head: {split: [asdict(suspect) for suspect in found] for split, found in of_head.items()}
                for head, of_head in self.suspects.items()
            },
        }

    def counts(self) -> dict[str, int]:
        """Returns how many pairs there are of each kind: in all, across the splits, and with labels that differ."""
        counts = {}
        for kind in _KINDS:
            of_kind = [pair for pair in self.doubles if pair.kind == kind]
            counts[kind] = len(of_kind)
            counts[f"{kind}_across"] = sum(pair.across for pair in of_kind)
            counts[f"{kind}_conflicting"] = sum(bool(pair.conflicts) for pair in of_kind)
        return counts


def audit(target: str, *, data_dir: Path | None = None) -> Audit:
    """Audits a prepared data set, or a run and the data that it was trained on.

    Args:
      target: name of a data set, or a run folder.
      data_dir: where prepared data sets lie; the default is the run's, else the usual place.

    Raises:
      UserError: there is no such data set or run, or data are not prepared.
    """
    require_audit_target(target, data_dir)
    folder = Path(target)
    if (folder / CONFIG).is_file():
        run = open_run(folder)
        where = data_dir or run.config.data.data_dir or default_data_dir()
        train, val, notes = halves(run, where)
        examples = {"train": train, "val": val}
        for line in notes:
            say(line)
        if nothing := [split for split, part in examples.items() if not len(part)]:
            raise UserError(f"no picture is left in {nothing[0]} to audit {folder} on: its data were prepared again")
        answers = {
            split: answers_on(run, part, batch_size=run.config.batches.batch_size, title=f"evaluating {split}")
            for split, part in examples.items()
        }
        name, sources, classes = folder.resolve().name, run.config.data.sources, run.spec.classes
    else:
        where = data_dir or default_data_dir()
        splits = {split: open_split(target, split, where) for split in _SPLITS}  # type: ignore[arg-type]
        name, sources, classes, answers, notes = target, (target,), splits["train"].classes, {}, []
        examples = {split: Examples([part], classes) for split, part in splits.items()}
    prints = take_prints([examples[split] for split in _SPLITS])
    return Audit(
        name=name,
        data=tuple(sources),
        notes=tuple(notes),
        balance=_balance(examples, classes),
        links=_links(examples, classes),
        doubles=_doubles(find_pairs(prints), examples, classes),
        persons_across=_persons_across(examples),
        suspects={
            task: {split: _suspects(answers[split], task, split) for split in _SPLITS if answers[split].count(task)}
            for task in (classes if answers else ())
        },
        examples=examples,
    )


def _balance(examples: Mapping[str, Examples], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    balance = count_data(examples, classes)
    for split, part in examples.items():
        balance[split]["groups"] = {
            name: dict(sorted(Counter(values.tolist()).items()))
            for name, values in part.groups().items()
            if name != IDENTITY and len(np.unique(values)) <= MAX_VALUES
        }
    return balance


def _links(examples: Mapping[str, Examples], classes: Mapping[str, Sequence[str]]) -> list[Link]:
    """Returns how far each head's labels go together with other labels and groups, over both splits."""
    known: dict[str, np.ndarray] = {}
    for task, names in classes.items():
        labels = np.concatenate([part.labels[task] for part in examples.values()])
        known[task] = np.where(labels == UNKNOWN, "", np.array(names)[np.maximum(labels, 0)])
    for name in {name: None for part in examples.values() for name in part.groups()}:
        if name != IDENTITY:
            values = np.concatenate([part.groups()[name] for part in examples.values()])
            known[name] = np.where(known[name] == "", values, known[name]) if name in known else values
    found = []
    for number, task in enumerate(classes):  # with which `known` begins, in this order
        for other, values in list(known.items())[number + 1 :]:
            both = (known[task] != "") & (values != "")
            rows, columns = np.unique(known[task][both]), np.unique(values[both])
            if min(len(rows), len(columns)) < 2 or len(columns) > MAX_VALUES:
                continue
            counts = {
                str(row): {
                    str(column): int(np.sum(both & (known[task] == row) & (values == column))) for column in columns
                }
                for row in rows
            }
            table = np.array([list(line.values()) for line in counts.values()])
            found.append(Link(task, other, float(association(table, method="cramer")), counts))
    return sorted(found, key=lambda link: -link.strength)


def _persons_across(examples: Mapping[str, Examples]) -> tuple[int, int] | None:
    train, val = ([unit for unit in examples[split].units().tolist() if ": person " in unit] for split in _SPLITS)
    both = {*train} & {*val}
    return (len(both), sum(unit in both for unit in val)) if train or val else None


def _doubles(
    pairs: Sequence[Pair], examples: Mapping[str, Examples], classes: Mapping[str, Sequence[str]]
) -> list[Double]:
    places = [(split, index) for split in _SPLITS for index in range(len(examples[split]))]
    units = {split: examples[split].units() for split in _SPLITS}
    found = []
    for pair in pairs:
        (split_a, a), (split_b, b) = places[pair.first], places[pair.second]
        part, other = examples[split_a], examples[split_b]
        labels = [(task, part.labels[task][a], other.labels[task][b]) for task in classes]
        persons = [str(units[split_a][a]), str(units[split_b][b])]
        known = all(": person " in person for person in persons)
        found.append(
            Double(
                pair.kind,
                part.name(a),
                other.name(b),
                (split_a, split_b),
                pair.bits,
                round(pair.levels, 2),
                persons[0] == persons[1] if known else None,
                tuple(task for task, x, y in labels if UNKNOWN not in (x, y) and x != y),
            )
        )
    return sorted(found, key=lambda pair: (_KINDS.index(pair.kind), not pair.across, pair.levels))


def _suspects(answers: Answers, task: str, split: str) -> list[Suspect]:
    rows = np.flatnonzero(answers.labels[task] != UNKNOWN)
    logits, labels = answers.logits[task][rows], answers.labels[task][rows]
    loss, names = losses(logits, labels), answers.classes[task]
    every = probabilities(logits)
    answer, probability = predicted(logits), every.max(axis=1)
    rank, confident = ranks(every, labels), confident_errors(every, labels)
    order = np.argsort(-loss, kind="stable")[:LISTED]
    return [
        Suspect(
            task,
            split,
            int(rows[at]),
            str(answers.names[rows[at]]),
            names[labels[at]],
            names[answer[at]],
            round(float(probability[at]), 4),
            round(float(loss[at]), 4),
            int(rank[at]),
            bool(confident[at]),
        )
        for at in order.tolist()
        if answer[at] != labels[at]
    ]
