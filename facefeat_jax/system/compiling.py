"""What each program cost before it ran, as JAX reports it: tracing, lowering, compiling, and whether it was kept."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass
from typing import Any

import jax

_TRACING = "/jax/core/compile/jaxpr_trace_duration"
_LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILING = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"


@dataclass
class Program:
    """A program that this process compiled, or read from the cache of compiled programs.

    Attributes:
      name: that of the function.
      tracing: seconds that running its Python took; with those of all that it calls.
      lowering: seconds until it was in the compiler's language.
      compiling: seconds until the compiler was done, or the cache had been read.
      cached: whether it was in the cache.
      ready: when it was done, by `time.perf_counter()`.
      needed: when it was first asked for; where nobody asked ahead, the work began then.
    """

    name: str
    tracing: float
    lowering: float
    compiling: float
    cached: bool
    ready: float
    needed: float

    def to_json(self, began: float) -> dict[str, Any]:
        """Returns it with its times in seconds after `began`."""
        seconds = {name: getattr(self, name) for name in ("tracing", "lowering", "compiling")}
        ready, needed = self.ready - began, self.needed - began
        return {"name": self.name, **seconds, "cached": self.cached, "ready": ready, "needed": needed}


class _OfThread(threading.local):
    """What has been reported in a thread since its last program."""

    def __init__(self) -> None:
        self.traced: dict[str, float] = {}
        self.lowering = 0.0
        self.hit = False
        self.last: Program | None = None


_found: list[Program] = []
_here = _OfThread()


@functools.cache
def listen() -> None:
    """Begins to take note of every program of this process; once is enough."""
    jax.monitoring.register_event_duration_secs_listener(_on_seconds)
    jax.monitoring.register_event_listener(_on_event)


def since(began: float) -> list[Program]:
    """Returns the programs that were done after a moment of `time.perf_counter()`, in that order."""
    return [program for program in _found if program.ready >= began]


def latest() -> Program | None:
    """Returns the program that this thread compiled last."""
    return _here.last


def _on_event(event: str, **_: Any) -> None:
    if event == _HIT:
        _here.hit = True


def _on_seconds(event: str, duration_secs: float, **about: Any) -> None:
    seconds, fun_name = duration_secs, str(about.get("fun_name", ""))
    if event == _TRACING:
        _here.traced[fun_name] = seconds
    elif event == _LOWERING:
        _here.lowering = seconds
    elif event == _COMPILING:
        name = fun_name.removeprefix("jit(").removesuffix(")")
        tracing, lowering, hit = _here.traced.get(name, 0.0), _here.lowering, _here.hit
        _here.traced, _here.lowering, _here.hit = {}, 0.0, False
        ready = time.perf_counter()
        needed = ready - tracing - lowering - seconds
        _here.last = Program(name, tracing, lowering, seconds, hit, ready, needed)
        _found.append(_here.last)
