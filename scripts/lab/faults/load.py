"""`facefeat predict` over very many files: memory, order, speed, and going on after it was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
from PIL import Image

from facefeat_jax.avatars import draw
from facefeat_jax.system.text import format_size
from faults.processes import environment, facefeat, random_run
from faults.tally import Tally

DEFAULT_COUNT = 20_000
SIZE = 64
TIMEOUT_S = 7200.0
MOST_GROWTH = 64 * 2**20  # of memory, from a quarter of the way to the end
_DRAWN = 100  # different pictures; each file is one of them, with its number in its pixels


def run(work: Path, *, count: int, seed: int) -> Tally:
    """Predicts `count` pictures without a stop, and again with a kill in the middle; each picture counts once."""
    tally = Tally(
        "load",
        "`facefeat predict --out` runs over very many files; then it runs again, is killed in the middle and resumed",
    )
    names = _draw(work / "pictures", count, seed)
    trained = random_run(work, size=SIZE)
    whole, again = work / "whole.jsonl", work / "again.jsonl"
    seconds, rss, said = _predict(trained, names, whole, work)
    killed_at = _predict_and_kill(trained, names, again, work, after=count * 2 // 5)
    _, _, resumed = _predict(trained, names, again, work, "--resume")
    first, second = (_answers(path) for path in (whole, again))
    for number, name in enumerate(names):
        one, other = (answers[number] if number < len(answers) else {} for answers in (first, second))
        in_place = one.get("file") == other.get("file") == name and one.get("heads")
        tally.add(bool(in_place) and one == other, "pictures", f"{name}: {one} and {other}")
    for kind, answers in (("answers of the whole run", first), ("answers after the kill", second)):
        tally.add(len(answers) == count, kind, f"{len(answers)} for {count} pictures")
    tally.add(killed_at > 0 and "from before" in resumed, "what was done is skipped", f"{killed_at}: {resumed[-300:]}")
    start, quarter, middle, end = (_at(rss, count, share) for share in (0.0, 0.25, 0.5, 1.0))
    tally.add(end - quarter < MOST_GROWTH, "flat memory", f"{quarter:,} bytes at a quarter, {end:,} at the end")
    figures = [format_size(value) for value in (start, quarter, middle, end)]
    tally.what += (
        f". {count:,} JPEG files of {SIZE} pixels, ResNet18 at {SIZE}: {count / seconds:,.0f} pictures/s from start "
        f"to end of the process; memory {figures[0]} at the first answers, {figures[1]} at a quarter, {figures[2]} "
        f"halfway, {figures[3]} at the end. Killed after {killed_at:,} answers and resumed"
    )
    if said_progress := [line for line in said.splitlines() if "pictures, " in line]:
        tally.what += f". It said, among others: {said_progress[-1].strip()!r}"
    return tally


def _draw(folder: Path, count: int, seed: int) -> list[str]:
    folder.mkdir(parents=True)
    drawn = [draw(seed, number).image.convert("RGB").resize((SIZE, SIZE)) for number in range(min(count, _DRAWN))]
    names = []
    for number in range(count):
        image: Image.Image = drawn[number % len(drawn)].copy()
        image.paste((number % 256, number // 256 % 256, 0), (0, 0, 8, 8))
        names.append(str(folder / f"{number:06}.jpg"))
        image.save(names[-1], quality=90)
    return names


def _start(trained: Path, names: list[str], out: Path, work: Path, *more: str) -> subprocess.Popen[bytes]:
    (work / "names.txt").write_text("".join(f"{name}\n" for name in names))
    command = [*facefeat("predict", trained, "-", "--out", out), *more]
    with (work / "names.txt").open("rb") as given, (work / "load.stderr").open("wb") as err:
        return subprocess.Popen(command, stdin=given, stdout=subprocess.DEVNULL, stderr=err, env=environment(work))


def _predict(
    trained: Path, names: list[str], out: Path, work: Path, *more: str
) -> tuple[float, list[tuple[int, int]], str]:
    """Runs it to the end; returns the seconds, (bytes of the output, bytes of memory) as it went, and what it said."""
    started = time.monotonic()
    child = _start(trained, names, out, work, *more)
    overdue = threading.Timer(TIMEOUT_S, child.kill)
    overdue.start()
    process, seen = psutil.Process(child.pid), []
    while child.poll() is None:
        try:
            if done := _size(out):
                seen.append((done, process.memory_info().rss))
        except psutil.Error:
            break
        time.sleep(0.1)
    code = child.wait()
    overdue.cancel()
    said = (work / "load.stderr").read_text()
    if code:
        raise RuntimeError(f"predict ended with {code}: {said[-1000:]}")
    return time.monotonic() - started, seen, said


def _predict_and_kill(trained: Path, names: list[str], out: Path, work: Path, *, after: int) -> int:
    """Kills it once there are `after` answers; returns how many there are."""
    child = _start(trained, names, out, work)
    while child.poll() is None:
        # Looked for rarely: reading the file is work for the same cores.
        if out.exists() and _lines(out) >= after:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return _lines(out)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _at(seen: list[tuple[int, int]], count: int, share: float) -> int:
    """Returns the memory when that share of the output was written."""
    last = seen[-1][0] if seen else 0
    return next((rss for done, rss in seen if done >= share * last), 0)
