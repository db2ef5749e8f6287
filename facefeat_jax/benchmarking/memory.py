"""A process's own memory, as the system counts it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_ROLLUP = Path("/proc/self/smaps_rollup")


def anonymous_bytes() -> int | None:
    """Returns the bytes of memory that belong to no file: what this process holds however full the page cache is.

    Pages of a memory-mapped file don't count, since the system can drop them. None where the system doesn't say.
    """
    try:
        for line in _ROLLUP.read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def host_memory() -> dict[str, int]:
    """Returns `anonymous_bytes` and `peak_resident_bytes` of this process, where the system says them."""
    found = {}
    if (anonymous := anonymous_bytes()) is not None:
        found["anonymous_bytes"] = anonymous
    try:
        import resource

        unit = 1 if os.uname().sysname == "Darwin" else 1024
        found["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except (ImportError, AttributeError):  # Windows
        found["peak_resident_bytes"] = psutil.Process().memory_info().rss
    return found
