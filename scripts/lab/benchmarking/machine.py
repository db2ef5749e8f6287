"""What else the machine does."""

from __future__ import annotations

import psutil


def busy_cores(seconds: float = 0.3) -> float:
    """Returns how many cores' worth of work the machine does meanwhile; called when we do none."""
    return round(psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1), 2)
