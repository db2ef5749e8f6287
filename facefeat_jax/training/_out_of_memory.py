"""What to say when memory runs out: which batch size or which feed would fit."""

from __future__ import annotations

from collections.abc import Callable

import jax

from facefeat_jax.system.errors import UserError
from facefeat_jax.system.text import format_size

# What is left free: allocators lose some of the memory to gaps.
_SPARE = 0.05
_SHARED = (
    ". If another process uses this device, end it, or give each of them a share of its memory: "
    "XLA_PYTHON_CLIENT_MEM_FRACTION=0.45"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error, or what it was raised from, says that the device's or the host's memory is used up."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or "RESOURCE_EXHAUSTED" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def advise(
    lower: Callable[[int], jax.stages.Lowered],
    batch_size: int,
    *,
    table_bytes: int,
    limit: int,
    device: str,
    is_shared: bool = False,
) -> UserError:
    """Returns the error that says what a step takes, and what would fit.

    Figures are those of XLA for the compiled step, so that smaller batches are compiled here until one fits.

    Args:
      lower: traces the step for a batch size.
      batch_size: the one that does not fit.
      table_bytes: what pictures that lie on each device take; 0 with the feed `stream`.
      limit: the memory of each device.
      device: its name.
      is_shared: whether other processes may use its memory, which JAX can't see.
    """
    room = (1 - _SPARE) * limit
    table = f", {format_size(table_bytes)} of it pictures (--feed device)" if table_bytes else ""
    needed = needed_bytes(lower(batch_size))
    taken = f"a step of {batch_size} pictures takes {format_size(needed)}{table}" if needed else "a step does not fit"
    advice = []
    if table_bytes and needed and needed - table_bytes <= room:
        advice.append(
            f"--feed stream, which leaves the pictures on the host (then it is {format_size(needed - table_bytes)})"
        )
    size = batch_size
    # Where XLA's figure says that it should have fit, other things lay in the way: at least half of the batch, then.
    while size > 1:
        size //= 2
        smaller = needed_bytes(lower(size))
        if smaller is None or smaller <= min(room, needed or room):
            advice.append(f"--batch-size {size}" + (f" ({format_size(smaller)})" if smaller else ""))
            break
    what = ", or ".join(advice) if advice else "no batch size does; give a smaller --image-size or --trunk"
    return UserError(
        f"out of memory on {device}, which has {format_size(limit)}: {taken}. What would fit: {what}. "
        f"Another batch size needs a new run; another feed works with --resume{_SHARED if is_shared else ''}"
    )


def needed_bytes(lowered: jax.stages.Lowered) -> int | None:
    """Returns the bytes that a program takes on each device while it runs, by XLA's figures."""
    try:
        used = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise
    if used is None:
        return None
    own = used.argument_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes + used.temp_size_in_bytes
    return own + used.generated_code_size_in_bytes
