"""One run by several processes, on one host or on many: joining, and who does what is done once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial

from facefeat_jax.system import progress
from facefeat_jax.system.errors import Interrupted, UserError
from facefeat_jax.system.main import end_at_once, run_main

# What `facefeat launch` sets, or whoever starts the processes. JAX reads the first by itself.
COORDINATOR, NUM_PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


@contextlib.contextmanager
def member(heartbeat_s: int) -> Iterator[None]:
    """Makes this process one of several; to be entered before anything asks JAX for devices.

    Where the environment does not say who takes part (`JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`,
    `JAX_PROCESS_ID`), JAX asks SLURM, Open MPI or Kubernetes.

    An error that this process meets alone ends it at once: the others wait for it in a computation, and are ended when
    its heartbeat stops.

    Args:
      heartbeat_s: how long a process may be silent until it is taken for dead, and the others are ended.

    Raises:
      UserError: nothing says who takes part, or they don't come together.
    """
    import jax

    where = [os.environ.get(name) for name in (NUM_PROCESSES, PROCESS)]
    try:
        count, number = (None if text is None else int(text) for text in where)
    except ValueError:
        raise UserError(f"{NUM_PROCESSES} and {PROCESS} must be numbers, got {where[0]!r} and {where[1]!r}") from None
    if os.environ.get(COORDINATOR) and (count is None or number is None):
        raise UserError(f"{COORDINATOR} is set; set {NUM_PROCESSES} and {PROCESS} too, or use `facefeat launch`")
    # JAX's own handler of SIGTERM would take the place of ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(num_processes=count, process_id=number, heartbeat_timeout_seconds=heartbeat_s)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--distributed: the processes did not come together ({reason}). Start them with `facefeat launch`, under "
            f"SLURM, Open MPI or Kubernetes, or set {COORDINATOR}, {NUM_PROCESSES} and {PROCESS} (docs/devices.md)"
        ) from error
    progress.console.quiet = not is_first()
    try:
        yield
    except Interrupted:  # in all processes, after the same step
        jax.distributed.shutdown()
        raise
    except BaseException as error:
        end_at_once(run_main(partial(_raised, error)))
    # Not at the exit of the interpreter, where a process that comes late is taken for one that has failed.
    jax.distributed.shutdown()


def _raised(error: BaseException) -> int:
    raise error


def is_first() -> bool:
    """Returns whether this is the process that writes what is written once: logs, results, the run's config."""
    import jax

    return jax.process_index() == 0
