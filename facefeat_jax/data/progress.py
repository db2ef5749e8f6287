"""The bar that `prepare` shows: pictures done, pictures per second, time left."""

from __future__ import annotations

import sys
from types import TracebackType


class PictureProgress:
    """One bar that goes through several phases; silent where standard error is no terminal. A context manager.

    Args:
      title: what is shown before each phase's name.
      enabled: false shows nothing in any case.
    """

    def __init__(self, title: str, *, enabled: bool):
        self._title = title
        self._bar = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> PictureProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, phase: str, total: int) -> None:
        """Begins a phase of `total` pictures."""
        if self._bar:
            self._bar.add_task(f"{self._title}: {phase}", total=total, rate="")

    def advance(self, count: int) -> None:
        """Counts pictures done in the current phase."""
        if self._bar:
            task = self._bar.tasks[-1]
            rate = f"{task.speed:,.0f} images/s" if task.speed else ""
            self._bar.update(task.id, advance=count, rate=rate)
