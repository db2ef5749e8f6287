"""`facefeat launch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from facefeat_jax.system.errors import UserError


@dataclass(frozen=True)
class Arguments:
    """Trains one model with several processes."""

    AFTER: ClassVar = ("--", "RECIPE", "[--field value]")

    processes: tyro.conf.Positional[Annotated[int, tyro.conf.arg(metavar="N")]]
    """Number of processes to start on this host."""
    total: int | None = None
    """Number of processes on all hosts. The default is the number on this host."""
    first: int = 0
    """Number, counted from 0, of the first process on this host."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Address of process 0. Required with several hosts."""
    devices_each: int | None = None
    """Number of this host's devices that each process uses. The default is all of them, for one process per host."""
    heartbeat_s: int = 60
    """Seconds without a sign of life after which a process counts as dead and the others are ended."""


def run(arguments: Arguments, training: Sequence[str]) -> int:
    """Starts the processes and waits for them; returns the exit code.

    Args:
      arguments: of the processes.
      training: what each of them gets: the recipe and its fields.

    Raises:
      UserError: no recipe, or numbers of processes or devices that don't fit together.
    """
    from facefeat_jax.training.launch import Hosts, launch

    if not training:
        raise UserError("name a recipe: facefeat launch N -- RECIPE [--field value]")
    hosts = Hosts(
        arguments.processes,
        arguments.processes if arguments.total is None else arguments.total,
        arguments.first,
        arguments.coordinator,
        arguments.devices_each,
    )
    return launch(list(training), hosts, heartbeat_s=arguments.heartbeat_s)
