"""Kills a training job at random moments and goes on with it: the weights must be those of a run left alone.

Compared are the exported safetensors byte for byte, every line of `metrics.jsonl` but those that hold times, and the
figures and history in `results.json`.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from faults.tally import Tally
from faults.workplace import WHOLE_TRUNK, Place

# Where the kill is aimed at, how often it is there in the job, and up to how many seconds after it the kill comes.
_PLACES: dict[str, tuple[int, float]] = {
    "train": (2, 3.0),
    "checkpoint": (6, 0.8),
    "validation": (2, 0.3),
    "packing": (2, 0.05),
    "prepare": (2, 0.4),
}
# In which order: those that an interruption is most likely to harm come often.
_ORDER = ("checkpoint", "train", "validation", "packing", "prepare", "checkpoint", "train", "train")


def run(work: Path, *, count: int, seed: int, options: Sequence[str] = WHOLE_TRUNK, data: Path | None = None) -> Tally:
    """Kills `count` processes by SIGKILL, each in a run of its own, which is then gone on with.

    Beside every four of them another one is ended by SIGTERM or Ctrl-C, after which it has to exit with its own code.

    Args:
      work: a folder to work in.
      count: how many kills.
      seed: of their moments.
      options: of the training job.
      data: folder of a data set that is there; None to draw one.
    """
    tally = Tally(
        "interruptions",
        "A training process is ended at a random moment and resumed. Weights, log and results must be identical, byte "
        "for byte, to those of an uninterrupted run",
    )
    place = Place(work, options, data)
    _ = place.expected  # made before any kill
    chance = random.Random(seed)
    number = kills = 0
    while kills < count:
        aim = _ORDER[number % len(_ORDER)]
        number += 1
        stop = signal.SIGKILL if aim == "prepare" or number % 5 else (signal.SIGTERM, signal.SIGINT)[number // 5 % 2]
        folder = work / f"kill-{number}"
        folder.mkdir()
        try:
            landed, fault = _kill(place, folder, aim, stop, chance)
        except RuntimeError as error:
            landed, fault = True, str(error)
        if landed:  # a moment that came after the end is drawn again
            tally.add(not fault, f"{stop.name} during {aim}", fault)
            kills += stop == signal.SIGKILL
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def _kill(place: Place, folder: Path, aim: str, stop: signal.Signals, chance: random.Random) -> tuple[bool, str]:
    """Kills one job and goes on with it; returns whether the kill came before its end, and what was wrong."""
    run, cache = folder / "run", folder / "cache"
    data = folder / "data" if aim == "prepare" else place.data
    times, seconds = _PLACES[aim]
    command = place.prepare_command(data) if aim == "prepare" else place.train_command(run)
    process = place.start(command, cache)
    times, seconds = chance.randint(1, times), chance.uniform(0, seconds)
    if not process.reach(aim, times):
        process.wait()
        raise RuntimeError(f"never came to {aim}: {process.errors[-2000:]}")
    time.sleep(seconds)
    process.signal(stop)
    code = process.wait()
    if code == 0:
        return False, ""
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[stop]
    if code != expected:
        return True, f"exit code {code}, not {expected}: {process.errors[-2000:]}"
    if aim == "prepare":
        place.finish(place.prepare_command(data))
    different = place.train_to_end(run, cache, data=data).differs(place.expected)
    return True, f"{different} differ after a kill {seconds:.2f} s after {aim} {times}" if different else ""
