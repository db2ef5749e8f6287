"""Ctrl-C and SIGTERM while training: finish the step, keep the run resumable, exit with the signal's code."""

from __future__ import annotations

import signal
from collections import deque
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np

from facefeat_jax.data.placement import Placement
from facefeat_jax.system import signals

# After how many more questions the processes of a run answer one: nothing waits for the other devices meanwhile.
_LATER = 3


class SignalWatch:
    """Notes the first SIGINT or SIGTERM. In a command the second ends the process at once; elsewhere (a notebook) it
    acts as it would have without the watch.

    Attributes:
      received: number of the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> SignalWatch:
        for number in signals.NUMBERS:
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: the caller handles signals
                break
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        for each, handler in self._previous.items():
            signal.signal(each, signals.stop_at_once if handler is signals.stop else handler)  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        if self.received is None:  # else they stand as the signal has left them
            for number, handler in self._previous.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


class StopRequest:
    """Whether to stop, answered alike by all processes of a run, at the same step.

    A signal reaches one process, or all of them at different steps. With several processes each question is a small
    computation over all of them, whose answer is looked at some questions later.

    Args:
      watch: notes the signals of this process.
      placement: the devices.
    """

    def __init__(self, watch: SignalWatch, placement: Placement):
        self._watch = watch
        self._placement = placement
        self._greatest = jax.jit(jnp.max, out_shardings=placement.replicated)
        self._asked: deque[jax.Array] = deque()

    def __call__(self) -> int | None:
        """Returns the number of the signal that came to any of the processes, or None."""
        if not self._placement.is_shared:
            return self._watch.received
        own = np.full(self._placement.local.num_devices, self._watch.received or 0, np.int32)
        greatest = self._greatest(self._placement.join(own, self._placement.table))
        self._asked.append(self._placement.in_turn(greatest))
        return (int(jax.device_get(self._asked.popleft())) or None) if len(self._asked) > _LATER else None
