"""Compiled programs: in the background, while data is being read, and kept for whoever asks for the same again."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

import jax

from facefeat_jax.system import compiling
from facefeat_jax.system.progress import say, waiting
from facefeat_jax.system.text import format_duration

Compiled = Callable[..., Any]
Maker = TypeVar("Maker", bound=Callable[..., Any])

# From how many seconds on a wait for a program is worth a line.
_LONG = 5.0


def kept(make: Maker) -> Maker:
    """Has a function that makes jitted functions return the same one for equal arguments; the latest 16 are kept.

    A jitted function holds what it has traced and compiled, so a run that is opened again in a process (resumed,
    evaluated, by `Predictor`) compiles nothing. `make` must read nothing but its arguments, and these must not be
    changed afterwards. Where an argument can't be hashed, a new function is made each time.
    """
    remembered = functools.lru_cache(maxsize=16)(make)

    @functools.wraps(make)
    def found(*arguments: Any, **options: Any) -> Any:
        try:
            hash((arguments, *options.values()))
        except TypeError:
            return make(*arguments, **options)
        return remembered(*arguments, **options)

    return cast(Maker, found)


class Programs:
    """Compiles programs ahead of their use, several at a time, in the order in which they were asked for.

    Attributes:
      compile_seconds: what tracing and compiling took, added up over the programs that are done.
      wait_seconds: how long `get` has waited for programs that were not done.

    Args:
      deterministic: on GPU, exclude operations that add up in no fixed order (atomics), and the autotuning that takes
        another algorithm in another process because it happened to be faster there. On CPU it changes nothing.
    """

    def __init__(self, *, deterministic: bool = False) -> None:
        self._options: dict[str, str | bool] | None = {"xla_gpu_deterministic_ops": True} if deterministic else None
        at_a_time = max(1, (os.cpu_count() or 1) // 2)
        self._pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="compile")
        self._one_at_a_time = at_a_time == 1
        self._later: dict[Hashable, Callable[[], jax.stages.Lowered]] = {}
        self._programs: dict[Hashable, Future[tuple[Compiled, compiling.Program | None]]] = {}
        self._titles: dict[Hashable, str] = {}
        self._asked: set[Hashable] = set()
        self.compile_seconds = 0.0
        self.wait_seconds = 0.0

    def add(self, key: Hashable, lower: Callable[[], jax.stages.Lowered], title: str = "a program") -> None:
        """Begins to compile a program, unless it was asked for already.

        Args:
          key: what it is asked for by.
          lower: traces it for the shapes and placement of its arguments (`jit(...).lower`).
          title: what it is called where somebody waits for it.
        """
        if key not in self._titles:
            self._titles[key] = title
            self._programs[key] = self._pool.submit(self._compile, lower)

    def add_later(self, key: Hashable, lower: Callable[[], jax.stages.Lowered], title: str = "a program") -> None:
        """Does as `add`, but where few cores are there, only when `begin_later` is called or the program is asked for.

        What was added before is used first, and would share the cores with it.
        """
        if not self._one_at_a_time:
            self.add(key, lower, title)
        elif key not in self._titles:
            self._titles[key], self._later[key] = title, lower

    def begin_later(self) -> None:
        """Begins to compile what `add_later` has left."""
        while self._later:
            key = next(iter(self._later))
            self._programs[key] = self._pool.submit(self._compile, self._later.pop(key))

    def _compile(self, lower: Callable[[], jax.stages.Lowered]) -> tuple[Compiled, compiling.Program | None]:
        started, before = time.perf_counter(), compiling.latest()
        compiled = lower().compile(self._options)
        self.compile_seconds += time.perf_counter() - started
        program = compiling.latest()
        return compiled, None if program is before else program

    def get(self, key: Hashable) -> Compiled:
        """Returns a program, once it is compiled; says so while somebody waits for it.

        Raises:
          Whatever tracing or compiling it raised.
        """
        if key in self._later:
            self.begin_later()
        future = self._programs[key]
        if key in self._asked:
            return future.result()[0]
        started, what = time.perf_counter(), f"compiling {self._titles[key]}"
        self._asked.add(key)
        try:
            with waiting(what):
                compiled, program = future.result()
        finally:
            waited = time.perf_counter() - started
            self.wait_seconds += waited
        if program is not None:
            program.needed = started
            if waited >= _LONG:
                parts = (("tracing", program.tracing), ("lowering", program.lowering))
                of = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)
                whole = program.tracing + program.lowering + program.compiling
                say(f"{what}: {format_duration(whole)} ({of}{', then from the cache' if program.cached else ''})")
        return compiled

    def close(self) -> None:
        """Drops what has not been begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
