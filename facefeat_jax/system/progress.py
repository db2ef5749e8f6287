"""What a command prints: progress and notes to standard error, answers to standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.table import Column
from rich.text import Text

from facefeat_jax.system.text import format_duration, one_line

# Progress and notes go to standard error: standard output is for answers.
console = Console(stderr=True, highlight=False, soft_wrap=True)


class _Bars(Progress):
    """A bar that fills the line between its title and its figures, with another line of figures below."""

    figures = ""

    def __init__(self, after: int, **options: Any):
        self._after = after
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=_column(max_width=32)),
            BarColumn(bar_width=None, table_column=_column(ratio=1)),
            TextColumn("{task.fields[count]}", markup=False, table_column=_column()),
            TextColumn("{task.fields[pace]}", markup=False, table_column=_column()),
            expand=True,
            **options,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        for task in self.tasks:
            of = "" if task.total is None else f"/{task.total:,.0f}"
            task.fields["count"], task.fields["pace"] = f"{task.completed:,.0f}{of}", self._pace(task)
        width = console.width - len("^C")  # which a terminal echoes behind it: wrapped, it would leave a bar behind
        yield Constrain(self.make_tasks_table(self.tasks), width)
        if self.figures:
            yield Constrain(Text(self.figures, no_wrap=True, overflow="ellipsis"), width)

    def _pace(self, task: Task) -> str:
        """Returns pictures per second since the bar began, waiting for data included, and how long it will go on."""
        done = task.completed - task.fields["before"]
        if not task.elapsed or not done:
            return ""
        rate = f"{done / task.elapsed:,.0f} images/s"
        if task.total is None:
            return rate
        # Not by the newest steps alone: several are begun at once, and look faster than they are.
        seconds = (task.total - task.completed + self._after) * task.elapsed / done
        return f"{rate}, {format_duration(seconds)} left"


def _column(**options: Any) -> Column:
    return Column(no_wrap=True, overflow="ellipsis", **options)


class Bar:
    """A progress bar over pictures; use it as a context.

    Args:
      description: what is going on.
      total: number of pictures; None where it is not known.
      completed: how many of them were done before, by an interrupted run; they don't count for the speed.
      after: how many are to follow when the bar is full, in further bars; they count for the time that is left.
      quiet: show nothing.

    Attributes:
      is_shown: whether there is a terminal to show it on, and it is not quiet.
    """

    def __init__(self, description: str, total: int | None, *, completed: int = 0, after: int = 0, quiet: bool = False):
        self.is_shown = not quiet and console.is_terminal
        self._progress = _Bars(after, console=console, transient=True, disable=not self.is_shown)
        self._task = self._progress.add_task(
            one_line(description), total=total, completed=completed, before=completed, count="", pace=""
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
        """Sets what stands below the bar."""
        self._progress.figures = one_line(text)

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
