"""Time and memory of each picture alone, in a process that calls the functions that `prepare` and `predict` call."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from faults.processes import run

MOST_SECONDS = 10.0  # of processor time, which others on the machine don't change
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
    for name in names:
        if name not in files:
            continue  # a pipe, a link: nothing is decoded
        slowest = 0.0
        data = tree.read(name)
        _mark()
        for look in (check, lambda data: decode_resized(data, 32, "upright", notes=[])):
            started = time.process_time()
            with contextlib.suppress(BadImageError):
                look(data)
            slowest = max(slowest, time.process_time() - started)
        print(json.dumps([name, slowest, max(0, _mark() - base)]), flush=True)


if __name__ == "__main__":
    main()
