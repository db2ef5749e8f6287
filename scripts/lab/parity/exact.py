"""Both sides on the same made-up case, and how far they are apart."""

from __future__ import annotations

import time
from dataclasses import dataclass

from parity import jax_side, torch_side
from parity.cases import Case
from parity.records import Difference, differences

TOLERANCE = 1e-9


@dataclass(frozen=True)
class ExactResult:
    """What a comparison of one case in one type found.

    Attributes:
      dtype: of everything, on both sides.
      rows: the largest difference of each kind.
      jax_seconds, torch_seconds: how long each side took, compilation included.
    """

    dtype: str
    rows: list[Difference]
    jax_seconds: float
    torch_seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether everything agrees within the tolerance, counters exactly."""
        return all(row.largest <= TOLERANCE for row in self.rows)


def compare_training(case: Case, dtype: str) -> ExactResult:
    """Trains both sides on the case."""
    started = time.perf_counter()
    theirs = torch_side.train(case, dtype=dtype)
    between = time.perf_counter()
    ours = jax_side.train(case, dtype=dtype)
    ended = time.perf_counter()
    return ExactResult(dtype, differences(ours, theirs), ended - between, between - started)


def table(result: ExactResult) -> str:
    """Returns the result as text."""
    lines = [f"{result.dtype}: JAX {result.jax_seconds:.0f} s, PyTorch {result.torch_seconds:.0f} s"]
    for row in result.rows:
        text = f"{row.largest:9.1e}" if row.largest else "    equal"
        lines.append(
            f"  {row.kind:16} {text}  of {row.compared:>10,} numbers{'  at ' + row.where if row.where else ''}"
        )
    return "\n".join(lines)
