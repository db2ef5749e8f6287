"""What a command prints: progress and notes to standard error, answers to standard output."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from facefeat_jax.system.text import one_line

# Progress and notes go to standard error: standard output is for answers.
console = Console(stderr=True, highlight=False, soft_wrap=True)


class _Speed(ProgressColumn):
    """Pictures per second since the bar began, waiting for data included."""

    def render(self, task: Task) -> Text:
        if not task.elapsed:
            return Text("")
        return Text(f"{(task.completed - task.fields['before']) / task.elapsed:.0f} images/s")


class Bar:
    """A progress bar over pictures; use it as a context.

    Args:
      description: what is going on.
      total: number of pictures; None where it is not known.
      completed: how many of them were done before, by an interrupted run; they don't count for the speed.
      quiet: show nothing.

    Attributes:
      is_shown: whether there is a terminal to show it on, and it is not quiet.
    """

    def __init__(self, description: str, total: int | None, *, completed: int = 0, quiet: bool = False):
        self.is_shown = not quiet and console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=not self.is_shown,
        )
        self._task = self._progress.add_task(
            one_line(description), total=total, completed=completed, before=completed, note=""
        )
        self._started = time.perf_counter()
        self.done = 0

    def __enter__(self) -> Bar:
        self._progress.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, pictures: int) -> None:
        """Counts pictures as done."""
        self.done += pictures
        self._progress.advance(self._task, pictures)

    def note(self, text: str) -> None:
        """Sets what stands behind the bar."""
        self._progress.update(self._task, note=one_line(text))

    @property
    def seconds(self) -> float:
        """Seconds since the bar was entered."""
        return time.perf_counter() - self._started

    @property
    def rate(self) -> float:
        """Pictures per second since the bar was entered."""
        return self.done / max(self.seconds, 1e-9)


def say(message: str) -> None:
    """Prints a line to standard error; what is in it of names can't control the terminal."""
    console.print(one_line(message), markup=False, emoji=False)


def show(*lines: str) -> None:
    """Prints lines of an answer to standard output, as `say` does."""
    for line in lines:
        print(one_line(line))


def show_json(value: Any) -> None:
    """Prints an answer as JSON to standard output."""
    print(json.dumps(value, indent=2))


def show_data(line: str) -> None:
    """Prints a line of data to standard output: for other programs as it is, on a terminal as `say` does."""
    print(one_line(line) if sys.stdout and sys.stdout.isatty() else line)
