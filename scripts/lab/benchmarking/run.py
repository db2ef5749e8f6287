"""Runs a benchmark: cases in order, sides in turn, each round on disk when it ends."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from benchmarking.cases import PLANS, STAGES, Case, Device, Plan, cases
from benchmarking.journal import ROUNDS, Journal, finished, read_journal
from benchmarking.processes import Side, SideError, Worker, run_command
from benchmarking.request import RESULTS, Request
from benchmarking.turns import take_turns
from benchmarking.workplace import Workplace
from facefeat_jax.runs.run_folder import write_json
from facefeat_jax.system import environment
from facefeat_jax.system.errors import Interrupted, UserError, unknown
from facefeat_jax.system.progress import say
from facefeat_jax.system.runtime import cores

FORMAT = 1

OURS = Side(
    name="ours",
    title="facefeat_jax",
    module="benchmarking.ours",
    packages=("facefeat-jax", "jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint", "numpy", "pillow"),
)

# What a worker of ours must not inherit: it would find programs compiled by somebody else.
_CLEAN = {"JAX_COMPILATION_CACHE_DIR": ""}
_ABOUT_DEVICE = """import jax
from facefeat_jax.system.environment import device_names
print(jax.default_backend(), device_names(), sep='|')"""


def run(request: Request, sides: Sequence[Side] = (OURS,)) -> dict[str, Any]:
    """Measures; writes every round into the request's folder when it ends, and `results.json` after every case.

    Args:
      request: what.
      sides: who takes part; ours is among them.

    Returns:
      What was written: see docs/benchmarks/README.md.

    Raises:
      UserError: bad input, or pictures that can't be used; cases in which a side fails go on without it.
      Interrupted: SIGTERM came; what was measured before is on disk.
    """
    request.check()
    if request.plan is not None and request.plan not in PLANS:
        raise unknown("plan", request.plan, PLANS)
    place = Workplace(request.work or request.out / "work")
    stages = request.stages or STAGES
    # Looked at before anything is made: the device is not known yet, but the names are.
    cases(PLANS["quick"], 1, [side.name for side in sides], stages)
    place.make()
    with _ended_by_sigterm():
        benchmark = _Benchmark(request, place, {side.name: side for side in sides}, stages)
        try:
            return benchmark.run()
        finally:
            benchmark.end_workers()
            if not request.keep:
                place.remove()


def busy_cores(seconds: float = 0.3) -> float:
    """Returns how many cores' worth of work the machine does meanwhile; called when we do none."""
    return round(psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1), 2)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number, "stopped; what was measured so far is in the results")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Benchmark:
    def __init__(self, request: Request, place: Workplace, sides: Mapping[str, Side], stages: Sequence[str]):
        self._request = request
        self._place = place
        self._sides = sides
        self._stages = stages
        self._workers: dict[str, Worker] = {}
        self._group = ""
        self._journal = Journal(request.out / ROUNDS)

    def run(self) -> dict[str, Any]:
        request = self._request
        try:
            printed, _ = run_command(["-c", _ABOUT_DEVICE], {}, self._place.log, timeout=300)
        except SideError as error:
            raise UserError(f"JAX finds no device to compute on: {error}") from error
        platform, _, devices = printed.strip().partition("|")
        device: Device = "cpu" if platform == "cpu" else "gpu"
        plan_name = request.plan or device
        plan = PLANS[plan_name]
        packages = tuple(dict.fromkeys(name for side in self._sides.values() for name in side.packages))
        begun = {
            "format": FORMAT,
            **environment.record(environment.typed("python scripts/benchmark.py"), packages, devices),
            **({"commit": request.commit} if request.commit else {}),
            "plan": plan_name,
            "device": device,
            "sides": {name: {"title": side.title, "absent": side.absent} for name, side in self._sides.items()},
        }
        planned = cases(plan, cores(), list(self._sides), self._stages, request.cases)
        self._journal.write("begin", results=begun)
        done = finished(read_journal(request.done)) if request.done else set()
        planned = [case for case in planned if case.name not in done]
        if any(case.operation not in ("matmul", "step", "forward", "feed_memory") for case in planned):
            data = self._place.fill(
                downloads=request.downloads,
                fraction=request.share(plan.synthetic),
                made=request.made,
                distinct=plan.distinct,
            )
            self._journal.write("data", data=data)
        if any(case.operation == "job" for case in planned):
            self._place.fill_weights()
        for number, case in enumerate(planned, 1):
            if self._left() <= 0:
                self._journal.write("case", case={**_about(case), "entries": {}})
                self._journal.write("skipped", why=f"no time left of {request.budget:.0f} s")
                continue
            say(f"benchmark {number}/{len(planned)} [{self._journal.elapsed():.0f} s]: {case.name}")
            self._measure(case, plan)
            self._journal.write("done")
            write_json(request.out / RESULTS, self._journal.results)
        self.end_workers()
        self._journal.write("end")
        write_json(request.out / RESULTS, self._journal.results)
        return self._journal.results

    def _left(self) -> float:
        """Returns the seconds that are left."""
        budget = self._request.budget
        return math.inf if budget is None else budget - self._journal.elapsed()

    def _patience(self, most: float) -> float:
        """Returns how many seconds to wait for an answer: there is no use in one that comes too late."""
        return max(1.0, min(most, self._left()))

    def end_workers(self) -> None:
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    # --- one case

    def _measure(self, case: Case, plan: Plan) -> None:
        if case.stage == "memory":  # needed by this case alone, and large
            for entry in case.entries.values():
                self._place.fill_faces(entry.settings["count"], plan.memory_image_size)
        if not case.group or case.group != self._group:
            self.end_workers()
            self._group = case.group
        self._journal.write("case", case={**_about(case), "busy_cores": busy_cores()})
        takers = {name: partial(self._fresh_round if case.fresh else self._round, case, name) for name in case.entries}
        take_turns(takers, case.rounds, alternate=not case.keep_caches)
        if not case.fresh:
            self._close(case)
            if not case.group:
                self.end_workers()

    def _settings(self, case: Case, name: str, work: Path | None = None) -> dict[str, Any]:
        entry = case.entries[name]
        data_dir = self._place.faces(entry.settings["count"]) if case.stage == "memory" else self._place.data
        common = {"data_dir": str(data_dir), "listing": str(self._place.listing), "work": str(work)}
        if case.operation == "job":
            common["weights"] = str(self._place.weights)
        return {"sources": ["fairface", "glasses", "apparel"], **common, **case.settings, **entry.settings}

    def _round(self, case: Case, name: str, number: int) -> Any:
        """Does a round. The first one opens the case: what ours finds is on disk before another side begins."""

        def do() -> dict[str, Any]:
            if number == 0:
                self._journal.write("opened", entry=name, found=self._open(case, name, case.entries[name].side))
            return self._workers[name].round(timeout=self._patience(600))

        return self._attempt(name, do)

    def _open(self, case: Case, name: str, side: str) -> dict[str, Any]:
        if name not in self._workers:
            # Several sides hold a device's memory at the same time here; left to itself, JAX takes most of it.
            variables = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4", **self._variables(self._place.folder / "caches")}
            self._workers[name] = Worker(self._sides[side], variables, self._place.log)
        return self._workers[name].open(case.operation, self._settings(case, name), timeout=self._patience(600))

    def _close(self, case: Case) -> None:
        for name in case.entries:
            if name in self._workers:
                self._attempt(name, partial(self._workers[name].close, timeout=self._patience(60)), "closed")

    def _fresh_round(self, case: Case, name: str, number: int) -> Any:
        """Does a round in a new process, with new caches unless the case keeps them."""
        work = self._place.folder / "rounds" / str(number) / ("" if case.keep_caches else name.replace(" ", "_"))

        def once() -> dict[str, Any]:
            work.mkdir(parents=True, exist_ok=True)
            side = self._sides[case.entries[name].side]
            started = time.perf_counter()
            try:
                with Worker(side, self._variables(work / "caches"), self._place.log) as worker:
                    settings = self._settings(case, name, work / name)
                    about = worker.open(case.operation, settings, timeout=self._patience(600))
                    figures = worker.round(timeout=self._patience(3600))
                    wall = time.perf_counter() - started
                    return {"wall_seconds": wall, **about, **figures, **worker.close(timeout=self._patience(600))}
            finally:
                if not case.keep_caches or name == list(case.entries)[-1]:
                    shutil.rmtree(work, ignore_errors=True)

        return self._attempt(name, once)

    def _variables(self, caches: Path) -> dict[str, str]:
        return {**_CLEAN, "FACEFEAT_CACHE": str(caches), "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor")}

    def _attempt(self, name: str, do: Callable[[], Any], what: str = "round") -> Any:
        """Does something for an entry and notes what came of it; where its side can't, notes why, and returns None."""
        try:
            found = do()
        except SideError as error:
            self._journal.write("failed", entry=name, found=str(error))
            say(f"  {name}: {error}")
            if worker := self._workers.pop(name, None):
                worker.end()
            return None
        self._journal.write(what, entry=name, found=found)
        return found


def _about(case: Case) -> dict[str, Any]:
    """Returns what is known of a case before its first round."""
    entries = {
        name: {"side": entry.side, "settings": dict(entry.settings), "rounds": []}
        for name, entry in case.entries.items()
    }
    about = {"name": case.name, "stage": case.stage, "operation": case.operation, "settings": dict(case.settings)}
    return {**about, "entries": entries}
