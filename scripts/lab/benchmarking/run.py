"""Runs a benchmark: cases in order, sides in turn, results on disk after each case."""

from __future__ import annotations

import contextlib
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
    """Measures, and writes `results.json` into the request's folder after every case.

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
        self._started = time.perf_counter()
        self._workers: dict[str, Worker] = {}
        self._group = ""
        self._results: dict[str, Any] = {}

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
        self._results = {
            "format": FORMAT,
            **environment.record(environment.typed("python scripts/benchmark.py"), packages, devices),
            **({"commit": request.commit} if request.commit else {}),
            "plan": plan_name,
            "device": device,
            "sides": {name: {"title": side.title, "absent": side.absent} for name, side in self._sides.items()},
            "cases": [],
        }
        planned = cases(plan, cores(), list(self._sides), self._stages, request.cases)
        if any(case.operation not in ("matmul", "step", "forward", "feed_memory") for case in planned):
            self._results["data"] = self._place.fill(
                downloads=request.downloads, fraction=request.share(plan.synthetic)
            )
        if any(case.operation == "job" for case in planned):
            self._place.fill_weights()
        self._write()
        for number, case in enumerate(planned, 1):
            if request.budget is not None and self._elapsed() > request.budget:
                self._note(case, {"skipped": f"no time left of {request.budget:.0f} s"})
                continue
            say(f"benchmark {number}/{len(planned)} [{self._elapsed():.0f} s]: {case.name}")
            self._note(case, self._measure(case, plan))
        self.end_workers()
        self._results["seconds"] = self._elapsed()
        self._write()
        return self._results

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _write(self) -> None:
        write_json(self._request.out / RESULTS, self._results)

    def _note(self, case: Case, found: dict[str, Any]) -> None:
        about = {"name": case.name, "stage": case.stage, "operation": case.operation, "settings": dict(case.settings)}
        self._results["cases"].append({**about, **found})
        self._write()

    def end_workers(self) -> None:
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    # --- one case

    def _measure(self, case: Case, plan: Plan) -> dict[str, Any]:
        entries: dict[str, dict[str, Any]] = {
            name: {"side": entry.side, "settings": dict(entry.settings), "rounds": []}
            for name, entry in case.entries.items()
        }
        if case.stage == "memory":  # needed by this case alone, and large
            for entry in case.entries.values():
                self._place.fill_faces(entry.settings["count"], plan.memory_image_size)
        if not case.group or case.group != self._group:
            self.end_workers()
            self._group = case.group
        busy = busy_cores()
        takers = self._fresh_takers(case, entries) if case.fresh else self._takers(case, entries)
        rounds = take_turns(takers, case.rounds, alternate=not case.keep_caches)
        for name, figures in rounds.items():
            entries[name]["rounds"] = figures
        if not case.fresh:
            self._close(case, entries)
            if not case.group:
                self.end_workers()
        return {"entries": entries, "busy_cores": busy}

    def _settings(self, case: Case, name: str, work: Path | None = None) -> dict[str, Any]:
        entry = case.entries[name]
        data_dir = self._place.faces(entry.settings["count"]) if case.stage == "memory" else self._place.data
        common = {"data_dir": str(data_dir), "listing": str(self._place.listing), "work": str(work)}
        if case.operation == "job":
            common["weights"] = str(self._place.weights)
        return {"sources": ["fairface", "glasses", "apparel"], **common, **case.settings, **entry.settings}

    def _takers(self, case: Case, entries: dict[str, dict[str, Any]]) -> dict[str, Callable[[int], Any]]:
        """Opens the case in one process for each entry; returns what does their rounds."""

        def taker(name: str, worker: Worker) -> Callable[[int], Any]:
            return lambda number: self._attempt(name, entries, lambda: worker.round(timeout=600))

        takers = {}
        for name, entry in case.entries.items():
            opened = self._attempt(name, entries, partial(self._open, case, name, entry.side))
            if opened is not None:
                entries[name]["about"] = opened
                takers[name] = taker(name, self._workers[name])
        return takers

    def _open(self, case: Case, name: str, side: str) -> dict[str, Any]:
        if name not in self._workers:
            # Several sides hold a device's memory at the same time here; left to itself, JAX takes most of it.
            variables = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4", **self._variables(self._place.folder / "caches")}
            self._workers[name] = Worker(self._sides[side], variables, self._place.log)
        return self._workers[name].open(case.operation, self._settings(case, name), timeout=600)

    def _close(self, case: Case, entries: dict[str, dict[str, Any]]) -> None:
        for name in case.entries:
            if name in self._workers and "error" not in entries[name]:
                closed = self._attempt(name, entries, partial(self._workers[name].close, timeout=600))
                entries[name]["after"] = closed

    def _fresh_takers(self, case: Case, entries: dict[str, dict[str, Any]]) -> dict[str, Callable[[int], Any]]:
        """Returns what does a round in a new process, with new caches unless the case keeps them."""

        def work_of(name: str, number: int) -> Path:
            return self._place.folder / "rounds" / str(number) / ("" if case.keep_caches else name.replace(" ", "_"))

        def once(name: str, number: int) -> dict[str, Any]:
            work = work_of(name, number)
            work.mkdir(parents=True, exist_ok=True)
            side = self._sides[case.entries[name].side]
            started = time.perf_counter()
            try:
                with Worker(side, self._variables(work / "caches"), self._place.log) as worker:
                    about = worker.open(case.operation, self._settings(case, name, work / name), timeout=600)
                    figures = worker.round(timeout=3600)
                    wall = time.perf_counter() - started
                    return {"wall_seconds": wall, **about, **figures, **worker.close(timeout=600)}
            finally:
                if not case.keep_caches or name == list(case.entries)[-1]:
                    shutil.rmtree(work, ignore_errors=True)

        def taker(name: str) -> Callable[[int], Any]:
            return lambda number: self._attempt(name, entries, lambda: once(name, number))

        return {name: taker(name) for name in case.entries}

    def _variables(self, caches: Path) -> dict[str, str]:
        return {**_CLEAN, "FACEFEAT_CACHE": str(caches), "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor")}

    def _attempt(self, name: str, entries: dict[str, dict[str, Any]], do: Callable[[], Any]) -> Any:
        """Does something for an entry; where its side can't, notes why, and returns None."""
        try:
            return do()
        except SideError as error:
            entries[name]["error"] = str(error)
            say(f"  {name}: {error}")
            if worker := self._workers.pop(name, None):
                worker.end()
            return None
