"""Both sides on the same made-up case, and how far they differ."""

from __future__ import annotations

import time

from parity import jax_side, torch_side
from parity.cases import Case
from weights_conversion._records import differences

TOLERANCE = 1e-9


def compare_training(case: Case, dtype: str) -> tuple[bool, str]:
    """Trains both sides on the case in a type.

    Returns:
      Whether everything agrees within the tolerance, counters exactly; and the largest difference of each kind as text.
    """
    started = time.perf_counter()
    theirs = torch_side.train(case, dtype=dtype)
    between = time.perf_counter()
    ours = jax_side.train(case, dtype=dtype)
    ended = time.perf_counter()
    rows = differences(ours, theirs)
    lines = [f"{dtype}: JAX {ended - between:.0f} s, PyTorch {between - started:.0f} s"]
    for row in rows:
        text, where = f"{row.largest:9.1e}" if row.largest else "    equal", f"  at {row.where}" if row.where else ""
        lines.append(f"  {row.kind:16} {text}  of {row.compared:>10,} numbers{where}")
    return all(row.largest <= TOLERANCE for row in rows), "\n".join(lines)
