"""Figures of one head, from its logits and labels on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.special import log_expit, log_softmax

from facefeat_jax.system.checked_json import finite


@dataclass(frozen=True)
class HeadResult:
    """The results of one head on labelled pictures.

    Attributes:
      accuracy: share of pictures whose predicted class is the label.
      loss: mean over pictures.
      loss_of_batches: mean of the batches' means, as the notebook reports it; differs where the last batch is short.
      n: number of pictures.
    """

    accuracy: float
    loss: float
    loss_of_batches: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values; a loss that is not finite as text, such as `inf`."""
        return finite(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HeadResult:
        """Returns the result that `to_json` was called on; other members are ignored."""
        return cls(float(values["accuracy"]), float(values["loss"]), float(values["loss_of_batches"]), int(values["n"]))


def probabilities(logits: Float[np.ndarray, "n _"]) -> Float[np.ndarray, "n _"]:
    """Returns class probabilities `[n, classes]` (float64) from logits `[n, outputs]`; one output makes two classes."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        return np.exp(np.concatenate([log_expit(-logits), log_expit(logits)], axis=-1))
    return np.exp(log_softmax(logits, axis=-1))


def predicted(logits: Float[np.ndarray, "n _"]) -> Int[np.ndarray, " n"]:
    """Returns the class numbers `[n]` that logits `[n, outputs]` predict."""
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[-1] == 1 else np.argmax(logits, axis=-1)


def losses(logits: Float[np.ndarray, "n _"], labels: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Returns the cross-entropy `[n]` (float64) of each picture, from logits `[n, outputs]` and labels `[n]`."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        signed = np.where(labels == 1, logits[:, 0], -logits[:, 0])
        return -log_expit(signed)
    return -np.take_along_axis(log_softmax(logits, axis=-1), labels[:, None].astype(np.int64), axis=-1)[:, 0]


def head_result(logits: Float[np.ndarray, "n _"], labels: Int[np.ndarray, " n"], *, batch_size: int) -> HeadResult:
    """Returns the figures of a head.

    Args:
      logits: `[n, outputs]`, in the order in which they were computed.
      labels: `[n]`, class numbers.
      batch_size: how many pictures were taken at a time; for `loss_of_batches`.
    """
    loss = losses(logits, labels)
    batches = [loss[start : start + batch_size].mean() for start in range(0, len(loss), batch_size)]
    return HeadResult(
        accuracy=float(np.mean(predicted(logits) == labels)),
        loss=float(loss.mean()),
        loss_of_batches=float(np.mean(batches)),
        n=len(labels),
    )
