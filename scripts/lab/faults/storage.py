"""Storage that fails: disks that are full, checkpoints that are spoilt, folders that are in use or can't be written.

After each fault the job is gone on with, and has to end with the bytes of one that met none.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from faults.tally import Tally
from faults.workplace import WHOLE_TRUNK, Place

_MIB = 2**20


def run(work: Path, *, count: int, seed: int, options: Sequence[str] = WHOLE_TRUNK) -> Tally:
    """Tries `count` faults, of all kinds in turn.

    Full disks and read-only folders need a `mount`, which only root may do; elsewhere they are counted as skipped.

    Args:
      work: a folder to work in.
      count: how many faults.
      seed: of what is spoilt, and how much room there is.
      options: of the training job.
    """
    tally = Tally(
        "storage",
        "The storage fails, and the job is then resumed. The failure must be reported in one line and lose nothing. "
        "Weights, log and results must be identical, byte for byte, to those without the fault",
    )
    place = Place(work, options)
    _ = place.expected
    chance = random.Random(seed)
    may_mount = _may_mount(work)
    for number in range(count):
        kind, fault = _KINDS[number % len(_KINDS)]
        folder = work / f"storage-{number}"
        folder.mkdir()
        try:
            if kind.startswith(_MOUNTED) and not may_mount:
                skipped = "skipped, since mounting is not allowed here"
                tally.counts[skipped] = tally.counts.get(skipped, 0) + 1
                continue
            error = fault(place, folder, chance)
            tally.add(not error, kind, error)
        except RuntimeError as error:
            tally.add(False, kind, str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return tally


def _spoilt(place: Place, folder: Path, chance: random.Random) -> str:
    """The newest checkpoint of a run that was killed near its end loses or changes some bytes."""
    process = place.start(place.train_command(folder / "run"), folder / "cache")
    process.reach("checkpoint", 6)  # that of the last step: those before are whole
    process.signal(9)
    process.wait()
    complete = [path for path in (folder / "run" / "checkpoints").iterdir() if path.name.isdigit()]
    newest = max(complete, key=lambda path: int(path.name))
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    # By size: most of what a disk spoils is in the large ones.
    file = (
        chance.choices(files, [path.stat().st_size for path in files])[0]
        if chance.random() < 0.7
        else chance.choice(files)
    )
    content = file.read_bytes()
    at = chance.randrange(len(content))
    how = chance.choice(["cut", "flipped", "zeroed", "deleted"])
    if how == "cut":
        file.write_bytes(content[:at])
    elif how == "flipped":
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
    elif how == "zeroed":
        file.write_bytes(content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :])
    else:
        file.unlink()
    different = place.train_to_end(folder / "run", folder / "cache").differs(place.expected)
    return f"{different} differ after {file.relative_to(newest)} was {how} at {at}" if different else ""


def _full(place: Place, folder: Path, chance: random.Random) -> str:
    """The disk with the run and the cache is full at some moment, and room is made."""
    room = int(_MIB * chance.choice([chance.uniform(0.05, 1.0), chance.uniform(1, 100), chance.uniform(100, 200)]))
    with _disk(folder / "disk", room) as disk:
        run, cache = disk / "run", disk / "cache"
        process = place.start(place.train_command(run), cache)
        code = process.wait()
        if code == 0:
            raise RuntimeError(f"{room:,} bytes were enough")
        said = process.errors.strip().splitlines()
        if code != 2 or not said[-1].startswith("facefeat: ") or "Traceback" in process.errors:
            return f"with {room:,} bytes: exit code {code}: {process.errors[-1500:]}"
        _mount("-o", "remount,size=4g", str(disk))
        different = place.train_to_end(run, cache).differs(place.expected)
        return f"{different} differ after a disk of {room:,} bytes was full ({said[-1]})" if different else ""


def _full_data(place: Place, folder: Path, chance: random.Random) -> str:
    """The disk that a data set is prepared on is too small, and room is made."""
    room = int(_MIB * chance.uniform(0.05, 64))
    with _disk(folder / "disk", room) as disk:
        process = place.start(place.prepare_command(disk / "data"))
        code = process.wait()
        said = process.errors.strip().splitlines()
        if code != 2 or not said[-1].startswith("facefeat: ") or "Traceback" in process.errors:
            return f"with {room:,} bytes: exit code {code}: {process.errors[-1500:]}"
        _mount("-o", "remount,size=1g", str(disk))
        place.finish(place.prepare_command(disk / "data"))
        different = place.train_to_end(folder / "run", folder / "cache", data=disk / "data").differs(place.expected)
        return f"{different} differ after a disk of {room:,} bytes was full" if different else ""


def _in_use(place: Place, folder: Path, chance: random.Random) -> str:
    """A second job is started in the folder of one that is under way."""
    del chance
    first = place.start(place.train_command(folder / "run"), folder / "cache")
    first.reach("train")
    second = place.start(place.train_command(folder / "run"), folder / "cache")
    code = second.wait()
    if first.wait():
        return f"the first one ended with {first.errors[-1500:]}"
    if code != 2 or "another process is training in" not in second.errors:
        return f"the second one was not refused, but ended with {code}: {second.errors[-1500:]}"
    different = place.train_to_end(folder / "run", folder / "cache").differs(place.expected)
    return f"{different} differ" if different else ""


def _read_only(place: Place, folder: Path, chance: random.Random) -> str:
    """The prepared data set is on a disk that can't be written to."""
    del chance
    (folder / "data").mkdir()
    _mount("--bind", str(place.data), str(folder / "data"))
    try:
        _mount("-o", "remount,bind,ro", str(folder / "data"))
        different = place.train_to_end(folder / "run", folder / "cache", data=folder / "data").differs(place.expected)
    finally:
        subprocess.run(["umount", str(folder / "data")], check=True)
    return f"{different} differ" if different else ""


_MOUNTED = ("a full disk", "a read-only")
_KINDS: list[tuple[str, Callable[[Place, Path, random.Random], str]]] = [
    ("a spoilt checkpoint", _spoilt),
    ("a full disk under the run", _full),
    ("a second run in the folder", _in_use),
    ("a full disk under the run", _full),
    ("a spoilt checkpoint", _spoilt),
    ("a full disk under the data set", _full_data),
    ("a read-only data set", _read_only),
]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def _disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Gives a folder room for so many bytes and no more; enters it."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={max(num_bytes // 4096, 1) * 4096}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _may_mount(work: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    try:
        with _disk(work / "probe", _MIB):
            return True
    except subprocess.CalledProcessError:
        return False
    finally:
        shutil.rmtree(work / "probe", ignore_errors=True)
