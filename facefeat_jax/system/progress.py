"""What a command prints: progress and notes to standard error, answers to standard output."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.table import Column
from rich.text import Text

from facefeat_jax.system.text import format_duration, one_line

Function = TypeVar("Function", bound=Callable[..., Any])

# Progress and notes go to standard error: standard output is for answers.
console = Console(stderr=True, highlight=False, soft_wrap=True)

# Without a terminal: seconds until the first line about a wait, and between lines about anything.
_FIRST_LINE_S, _LINES_S = 10.0, 50.0
_bars: list[Bar] = []  # that are shown, the innermost last


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
        self._description, self._before, self._total, self._quiet = description, completed, total, quiet
        self._started = self._said = time.perf_counter()
        self.done = 0

    def __enter__(self) -> Bar:
        self._progress.start()
        self._started = self._said = time.perf_counter()
        if self.is_shown:
            _bars.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_shown:
            _bars.remove(self)
        self._progress.stop()

    def advance(self, pictures: int) -> None:
        """Counts pictures as done; without a terminal, says now and then how many there are."""
        self.done += pictures
        self._progress.advance(self._task, pictures)
        if not self.is_shown and not self._quiet and time.perf_counter() - self._said > _LINES_S:
            self._said = time.perf_counter()
            of = "" if self._total is None else f" of {self._total:,}"
            say(f"{self._description}: {self._before + self.done:,}{of}, {self.rate:,.0f} images/s")

    def note(self, text: str) -> str:
        """Sets what stands below the bar; returns what stood there."""
        before, self._progress.figures = self._progress.figures, one_line(text)
        return before

    @property
    def seconds(self) -> float:
        """Seconds since the bar was entered."""
        return time.perf_counter() - self._started

    @property
    def rate(self) -> float:
        """Pictures per second since the bar was entered."""
        return self.done / max(self.seconds, 1e-9)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what is waited for and for how long by now, until the block ends: "compiling the training step (12 s)".

    On a terminal this is a line that grows, below the bar if there is one; elsewhere a line now and then.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_say_waiting, args=(what, ended), name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def slow_at_first(function: Function, what: str) -> Function:
    """Returns a jitted function that says what it is `waiting` for at its first call, which compiles."""
    is_first = True

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        nonlocal is_first
        if not is_first:
            return function(*arguments, **options)
        is_first = False
        with waiting(what):
            return function(*arguments, **options)

    return cast(Function, called)


def _say_waiting(what: str, ended: threading.Event) -> None:
    began = time.perf_counter()

    def text() -> str:
        return one_line(f"{what} ({format_duration(time.perf_counter() - began)})")

    if not console.is_terminal:
        seconds = _FIRST_LINE_S
        while not ended.wait(seconds):
            say(text())
            seconds = _LINES_S
    elif not ended.wait(0.5):
        if _bars:
            bar = _bars[-1]
            before = bar.note(text())
            while not ended.wait(0.5):
                bar.note(text())
            bar.note(before)
            return
        with console.status(Text(text())) as status:
            while not ended.wait(0.5):
                status.update(Text(text()))


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
