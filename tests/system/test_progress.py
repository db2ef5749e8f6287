"""The progress bar as a terminal of 80 columns shows it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from facefeat_jax.system import progress

LOSSES = "loss (accuracy): gender 0.693 (52%)  glasses 0.512 (75%)  shirt 2.010 (23%)"


def shown(monkeypatch, width: int, *args, figures: str = "", **options) -> list[str]:
    """Returns the last lines that a bar shows, 1,200 pictures after it began."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, height=24, soft_wrap=True, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    with progress.Bar(*args, **options) as bar:
        bar.advance(1200)
        bar.note(figures)
        file.truncate(0)
        bar._progress.refresh()
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", file.getvalue()).strip("\0")
    return text.splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_of_training_fits_with_all_its_figures(width, monkeypatch):
    bar, *below = shown(monkeypatch, width, "epoch 1/3", 12_000, after=24_000, figures=LOSSES)
    assert len(bar) <= width and bar.startswith("epoch 1/3 ")
    assert re.search(r" 1,200/12,000 [\d,]+ images/s, (\d+ min )?\d+ s left$", bar)
    assert len(below) == 1 and (below == [LOSSES] if width > 60 else len(below[0]) <= 60 and below[0].endswith("…"))


def test_the_time_left_covers_the_epochs_to_come(monkeypatch):
    monkeypatch.setattr("facefeat_jax.system.progress.Task.elapsed", 12.0)
    monkeypatch.setattr("facefeat_jax.system.progress.Task.speed", 900.0)  # of steps that were begun at once
    (bar,) = shown(monkeypatch, 80, "epoch 1/3", 12_000, after=24_000)
    assert bar.endswith(" 100 images/s, 5 min 48 s left")  # for 10,800 and 24,000 pictures


@pytest.mark.parametrize(("title", "total"), [("predicting", None), ("a name that is very long: checking train", 9600)])
def test_other_bars_fit_too(title, total, monkeypatch):
    (bar,) = shown(monkeypatch, 80, title, total)
    assert len(bar) <= 80 and "1,200" in bar and " images/s" in bar
    assert bar.startswith("predicting " if total is None else "a name that is very long: check")
