"""The answers of all heads for a set of pictures, from which figures, slices, calibration and audit are computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facefeat_jax.data.examples import UNKNOWN, Examples
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.forward import FEATURES
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.tables import csv_table


@dataclass(frozen=True, eq=False)
class Answers:
    """The logits of every head on every picture, beside what is known of the pictures.

    Attributes:
      classes: class names of each head, in the order of its outputs.
      logits: per head `[n, outputs]`; one output makes two classes.
      labels: per head `[n]`, class numbers; `UNKNOWN` where a picture has no label for it.
      groups: per group `[n]`, str; blank where unknown.
      names: `[n]`, str; where each picture came from.
      units: `[n]`, str; pictures of the same person share it (`Examples.units`).
      features: `[n, features]`, float32, the trunk's pooled features; None where they were not kept.

    Raises:
      UserError: a logit is not finite.
    """

    classes: dict[str, tuple[str, ...]]
    logits: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    names: np.ndarray
    units: np.ndarray
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        for task, logits in self.logits.items():
            if bad := int(np.sum(~np.isfinite(logits).all(axis=-1))):
                raise UserError(
                    f"head {task!r} gives numbers that are not finite on {bad:,} of {len(logits):,} pictures: the "
                    "weights are damaged, or the training diverged. Use an earlier checkpoint, or train again with a "
                    "lower --learning-rate"
                )

    @classmethod
    def of(cls, examples: Examples, classes: Mapping[str, Sequence[str]], logits: Mapping[str, np.ndarray]) -> Answers:
        """Puts what an `Evaluator` returns beside what the examples carry; the classes are the model's."""
        features = logits.get(FEATURES)
        return cls(
            classes={task: tuple(names) for task, names in classes.items()},
            logits={task: np.asarray(logits[task], np.float64) for task in classes},
            labels={task: examples.labels[task] for task in classes},
            groups=examples.groups(),
            names=np.array([examples.name(index) for index in range(len(examples))], dtype=str),
            units=examples.units(),
            features=None if features is None else np.asarray(features, np.float32),
        )

    def __len__(self) -> int:
        return len(self.names)

    def count(self, task: str) -> int:
        """Returns how many pictures have a label for the head."""
        return int(np.sum(self.labels[task] != UNKNOWN))

    def labelled(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the head's logits `[m, outputs]` and labels `[m]` on the pictures that have its label."""
        known = self.labels[task] != UNKNOWN
        return self.logits[task][known], self.labels[task][known]

    def select(self, chosen: np.ndarray) -> Answers:
        """Returns the answers for some pictures: their numbers, or a mask `[n]`."""
        return Answers(
            self.classes,
            {task: values[chosen] for task, values in self.logits.items()},
            {task: values[chosen] for task, values in self.labels.items()},
            {name: values[chosen] for name, values in self.groups.items()},
            self.names[chosen],
            self.units[chosen],
            None if self.features is None else self.features[chosen],
        )

    def scaled(self, temperatures: Mapping[str, float]) -> Answers:
        """Returns the answers with each head's logits divided by its temperature, if any."""
        logits = {task: values / temperatures.get(task, 1.0) for task, values in self.logits.items()}
        return dataclasses.replace(self, logits=logits)

    def to_csv(self) -> str:
        """Returns a table with a line per picture: its label, the answer, its probability and the loss, per head."""
        columns: dict[str, Sequence[str]] = {"file": list(self.names)}
        for task, names in self.classes.items():
            logits, labels = self.logits[task], self.labels[task]
            probability = probabilities(logits)
            loss = losses(logits, np.maximum(labels, 0))
            columns[f"{task}_label"] = ["" if label == UNKNOWN else names[label] for label in labels]
            columns[f"{task}_predicted"] = [names[number] for number in predicted(logits)]
            columns[f"{task}_probability"] = [f"{value:.6f}" for value in probability.max(axis=-1)]
            columns[f"{task}_loss"] = [
                "" if label == UNKNOWN else f"{value:.6f}" for label, value in zip(labels, loss, strict=True)
            ]
        for name, values in self.groups.items():
            columns[f"group_{name}"] = list(values)
        return csv_table(list(columns), zip(*columns.values(), strict=True))
