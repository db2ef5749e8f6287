"""`facefeat launch`: starts the processes of one run on this host, watches them, and says which of them died."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from facefeat_jax.system import signals
from facefeat_jax.system.distributed import COORDINATOR, NUM_PROCESSES, PROCESS
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.progress import say

_POLL_S = 0.2
# How much longer than the heartbeat the others may take to end, until they are ended from here.
_GRACE_S = 20.0
_TRAIN = (sys.executable, "-m", "facefeat_jax.cli", "train")


@dataclass(frozen=True)
class Hosts:
    """Where the processes of a run are.

    Attributes:
      processes: how many on this host.
      total: how many on all hosts.
      first: the number of the first one on this host.
      coordinator: `HOST:PORT` of process 0; None where it is on this host and nobody else has to know.
      devices_each: how many devices of this host each process takes; None for all.
    """

    processes: int
    total: int
    first: int = 0
    coordinator: str | None = None
    devices_each: int | None = None

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise UserError(f"a run has one process or more, got {self.processes}")
        if not 0 <= self.first <= self.total - self.processes:
            raise UserError(
                f"processes {self.first} to {self.first + self.processes - 1} are not among the {self.total} of the "
                "run, which are counted from 0; see --first and --total"
            )
        if self.coordinator is None and self.processes < self.total:
            raise UserError("with processes on other hosts, give --coordinator HOST:PORT of process 0")

    def arguments(self) -> list[str]:
        """Returns them as arguments of `facefeat launch`."""
        arguments = [str(self.processes)]
        if self.total > self.processes:
            arguments += ["--total", str(self.total), "--first", str(self.first)]
        if self.coordinator is not None:
            arguments += ["--coordinator", self.coordinator]
        if self.devices_each is not None:
            arguments += ["--devices-each", str(self.devices_each)]
        return arguments


def launch(arguments: Sequence[str], hosts: Hosts, *, heartbeat_s: int, command: Sequence[str] = _TRAIN) -> int:
    """Runs `facefeat train ARGUMENTS` in several processes that train one model.

    The first signal is passed on, and they write a checkpoint; the second ends them at once.

    Args:
      arguments: those of `facefeat train`.
      hosts: where the processes are.
      heartbeat_s: how long a process may be silent until the others take it for dead.
      command: what takes the arguments.

    Returns:
      The exit code: 0, 2, 130 or 143 as `facefeat train` gives it; 1 where a process died.
    """
    coordinator = hosts.coordinator or f"127.0.0.1:{_free_port()}"
    whole = [*command, *arguments, "--distributed", "--heartbeat-s", str(heartbeat_s)]
    running: dict[int, subprocess.Popen[bytes]] = {}
    for place in range(hosts.processes):
        number = hosts.first + place
        environment = {**os.environ, COORDINATOR: coordinator, NUM_PROCESSES: str(hosts.total), PROCESS: str(number)}
        if hosts.devices_each is not None:
            own = range(place * hosts.devices_each, (place + 1) * hosts.devices_each)
            environment["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, own))
        # In a session of its own: Ctrl-C would reach it twice, from the terminal and from here.
        running[number] = subprocess.Popen(whole, env=environment, start_new_session=True)
    ended: dict[int, int] = {}  # in the order in which they ended
    died_at: float | None = None
    sent = 0

    def pass_on(signal_number: int, frame: object) -> None:
        nonlocal sent
        sent = signal_number
        for process in running.values():
            process.send_signal(signal_number)

    previous = {number: signal.signal(number, pass_on) for number in signals.NUMBERS}
    try:
        while running:
            time.sleep(_POLL_S)
            for number, process in list(running.items()):
                if (code := process.poll()) is None:
                    continue
                ended[number] = code
                del running[number]
                if code and died_at is None:
                    died_at = time.monotonic()
                    if not sent:
                        say(f"facefeat launch: process {number} of {hosts.total} {_how(code)}; waiting for the others")
            if died_at is not None and time.monotonic() - died_at > heartbeat_s + _GRACE_S:
                for process in running.values():
                    process.kill()
    finally:
        for process in running.values():
            process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return _answer(ended, died_at, arguments, hosts)


def _answer(ended: dict[int, int], died_at: float | None, arguments: Sequence[str], hosts: Hosts) -> int:
    failed = {number: code for number, code in ended.items() if code}
    if died_at is None:
        return 0
    first, code = next(iter(failed.items()))
    if code in (2, 130, 143):  # it has said why itself
        return code
    others = f"; the others ended within {time.monotonic() - died_at:.0f} s" if len(ended) > 1 else ""
    again = [] if "--resume" in arguments else ["--resume"]
    kept = [argument for argument in arguments if argument != "--overwrite"]
    resume = shlex.join(["facefeat", "launch", *hosts.arguments(), "--", *kept, *again])
    where = " (on each host with its own --first)" if hosts.total > hosts.processes else ""
    say(
        f"facefeat launch: process {first} of {hosts.total} {_how(code)}{others}. To continue from the newest "
        f"checkpoint, run{where}: {resume}"
    )
    return 1


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
