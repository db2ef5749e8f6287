"""Times the start of a training, from the process to the end of its first step, each time with empty caches.

    python scripts/lab/measure_start.py commits ../other-checkout     # this checkout and another one, in turn
    python scripts/lab/measure_start.py settings                      # what may shorten the start, one by one
    python scripts/lab/measure_start.py warm --recipe best            # cold, then with what that left in the caches

Each round is printed as it ends; then a table of medians. With `--whole` the training runs to its end, and the whole
process is timed too. On a GPU the settings are what XLA spends its time on there; on CPU most change nothing, and this
is a rehearsal. A setting that XLA does not know is named and left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from facefeat_jax.system.main import run_and_exit
from measuring import show

ROOT = Path(__file__).resolve().parents[2]

# What a process does; it is told when it was started, the checkout, how many programs it may compile at a time (0: as
# it is), whether it goes on after the first step, and the words of `facefeat`.
CHILD = r"""
import json, os, sys, time
began, checkout, at_a_time, whole, *words = sys.argv[1:]
sys.path.insert(0, checkout)
from facefeat_jax.system import runtime
start_up = runtime.start_up

def start_up_and_watch():  # only now: what is imported before would not be part of the start
    start_up()
    import jax
    from facefeat_jax.system import programs
    from facefeat_jax.training import _step_figures
    add, pool = _step_figures.StepFigures.add, programs.ThreadPoolExecutor
    if int(at_a_time):
        programs.ThreadPoolExecutor = lambda workers, **options: pool(int(at_a_time), **options)

    def first(self, call, one, metrics):
        jax.block_until_ready(metrics)
        used = os.times()
        cpu = used.user + used.system + used.children_user + used.children_system
        print("FIRST", json.dumps({"first step": time.time() - float(began), "CPU": cpu}), flush=True)
        if not int(whole):
            os._exit(0)
        _step_figures.StepFigures.add = add
        add(self, call, one, metrics)

    _step_figures.StepFigures.add = first

runtime.start_up = start_up_and_watch
from facefeat_jax import cli
sys.argv = ["facefeat", *words]
sys.exit(cli.main())
"""


class Setting(NamedTuple):
    """What is set for a process."""

    variables: dict[str, str] = {}  # noqa: RUF012  (never changed)
    options: tuple[str, ...] = ()
    at_a_time: int = 0
    checkout: Path = ROOT


SETTINGS = {
    "as it is": Setting(),
    **{f"xla_gpu_autotune_level={n}": Setting({"XLA_FLAGS": f"--xla_gpu_autotune_level={n}"}) for n in range(5)},
    "no Triton products": Setting({"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"}),
    "neither, level 0": Setting({"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"}),
    "fixed algorithms (no search)": Setting(options=("--deterministic",)),
    "XLA's own caches": Setting({"JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "all"}),
    "less compile effort": Setting({"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0"}),
    "one program at a time": Setting(at_a_time=1),
    "two programs at a time": Setting(at_a_time=2),
    "one step a call": Setting(options=("--steps-per-call", "1")),
    "32 steps a call": Setting(options=("--steps-per-call", "32")),
}


def measured(setting: Setting, words: list[str], folder: Path, *, whole: bool, left: float) -> dict[str, float] | None:
    """Returns the seconds of one process, with caches in a folder; None where it failed.

    Raises:
      subprocess.TimeoutExpired: it was not done after so many seconds, and was ended.
    """
    environment = {**os.environ, **setting.variables, "FACEFEAT_CACHE": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # programs compiled by somebody else
    told = [str(setting.checkout), str(setting.at_a_time), str(int(whole))]
    run = ["--run", str(folder / f"run-{time.time_ns()}")]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(time.time()), *told, "train", *words, *run, *setting.options],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=left,
    )
    seconds = time.perf_counter() - began
    found = [line for line in done.stdout.splitlines() if line.startswith("FIRST ")]
    if done.returncode or not found:
        return None
    return json.loads(found[0].removeprefix("FIRST ")) | ({"whole": seconds} if whole else {})


def main(
    what: tyro.conf.Positional[Literal["commits", "settings", "warm"]],
    other: tyro.conf.Positional[Path | None] = None,
    recipe: str = "avatars",
    data_dir: Path | None = None,
    rounds: int = 3,
    whole: bool = False,
    options: str = "",
    only: tuple[str, ...] = (),
    budget: float = 1e9,
) -> None:
    """Measures, and prints the table.

    Args:
      what: what is compared.
      other: with `commits`, another checkout.
      recipe: the recipe.
      data_dir: folder of its prepared data.
      rounds: how often, in turn.
      whole: whether trainings go on to their end.
      options: further options of `facefeat train`, in one word.
      only: names of settings; the default is all.
      budget: seconds after which the process that runs is ended; the table has the rounds before.
    """
    settings = SETTINGS if what == "settings" else {"cold": Setting()}
    if what == "commits":
        settings = {"this commit": Setting(), "the other": Setting(checkout=(other or ROOT).resolve())}
    settings = {name: setting for name, setting in settings.items() if not only or name in only}
    words = [recipe, *(["--data-dir", str(data_dir.resolve())] if data_dir else []), *shlex.split(options)]
    found: dict[str, list[dict[str, float]]] = {}
    began = time.perf_counter()
    for number in range(rounds):
        for name, setting in list(settings.items()):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(subprocess.TimeoutExpired):
                for kind in (name, "warm")[: 2 if what == "warm" else 1]:
                    left = budget - (time.perf_counter() - began)
                    if left <= 0:
                        break
                    seconds = measured(setting, words, Path(folder), whole=whole, left=min(left, 1e6))
                    print(json.dumps({"round": number, "what": kind, **(seconds or {"failed": True})}), flush=True)
                    if seconds is None:
                        settings.pop(name, None)
                        break
                    found.setdefault(kind, []).append(seconds)
    figures = ["first step", "CPU", *(["whole"] if whole else [])]
    rows = [
        [
            name,
            *(f"{statistics.median(one[figure] for one in measured_):.1f}" for figure in figures),
            ", ".join(f"{one['first step']:.1f}" for one in measured_),
        ]
        for name, measured_ in found.items()
    ]
    titles = {"first step": "until the first step, s", "CPU": "CPU time until then, s", "whole": "whole process, s"}
    show(__file__, [f"`{recipe}`", *(titles[figure] for figure in figures), "each round"], rows)


if __name__ == "__main__":
    run_and_exit(lambda: tyro.cli(main))
