"""Time and memory of each picture alone, in a process that calls the functions that `prepare` and `predict` call."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from faults.processes import run, watching

MOST_SECONDS = 10.0  # of processor time, which others on the machine don't change
MOST_SECONDS_OUTSIDE = 60.0  # where a plug-in decodes, in as many threads as it likes
MOST_BYTES = int(1.1 * 2**30)  # above what the process holds before the first picture
_TIMEOUT_S = 1800.0


def measured(folder: Path, names: Sequence[str], work: Path) -> Mapping[str, tuple[float, int]]:
    """Returns processor seconds and bytes above its own need by the name of each picture that was gone through.

    Bytes are 0 where the system has no mark of the most memory that can be set back (all but Linux).
    """
    given = json.dumps([str(folder), list(names)]).encode()
    ended = run([sys.executable, "-m", "faults.decoding"], work, timeout=_TIMEOUT_S, stdin=given)
    found = [json.loads(line) for line in ended.out.splitlines()]
    return {name: (seconds, size) for name, seconds, size in found}


def _seconds() -> float:
    """Returns the processor time of this process and of those that it started."""
    used = os.times()
    spent = used.user + used.system + used.children_user + used.children_system
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            spent += sum(child.cpu_times()[:2])
    return spent


def _mark() -> int:
    """Returns the most bytes that this process has held since the last call, and sets that mark back."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def main() -> None:
    """Goes through the pictures that standard input names."""
    from facefeat_jax.data.images import BadImageError, check, decode_resized
    from facefeat_jax.data.trees import open_tree

    folder, names = json.load(sys.stdin)
    tree = open_tree(Path(folder))
    files = set(tree.files())
    _mark()
    base = _mark()
    with watching(os.getpid()) as held:  # the plug-ins' process beside this one
        for name in names:
            if name not in files:
                continue  # a pipe, a link: nothing is decoded
            slowest = 0.0
            data = tree.read(name)
            _mark()
            held.clear()
            for look in (check, lambda data: decode_resized(data, 32, "upright", notes=[])):
                started = _seconds()
                with contextlib.suppress(BadImageError):
                    look(data)
                slowest = max(slowest, _seconds() - started)
            print(json.dumps([name, slowest, max(0, max(_mark(), *held, 0) - base)]), flush=True)


if __name__ == "__main__":
    main()
