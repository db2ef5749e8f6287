"""Taking turns, and what many rounds come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Round = TypeVar("Round")


class Spread(NamedTuple):
    """A figure measured several times."""

    median: float  # the middle one
    low: float  # the smallest
    high: float  # the largest
    n: int  # how many there are


def spread(values: Sequence[float]) -> Spread | None:
    """Returns the median and the extremes, or None where there are no values."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


def take_turns(
    takers: Mapping[str, Callable[[int], Round | None]], rounds: int, *, alternate: bool = True
) -> dict[str, list[Round]]:
    """Lets each taker do one round after the other, `rounds` times.

    Every second time the order is turned round, so that nobody always comes right after the same neighbour.

    Args:
      takers: by name, a function of the round's number that returns the round's figures, or None where it drops out.
      rounds: how often.
      alternate: whether the order is turned round.

    Returns:
      By name the figures of all rounds.
    """
    done: dict[str, list[Round]] = {name: [] for name in takers}
    present = list(takers)
    for number in range(rounds):
        for name in list(present) if number % 2 == 0 or not alternate else present[::-1]:
            figures = takers[name](number)
            if figures is None:
                present.remove(name)
            else:
                done[name].append(figures)
    return done


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Returns round by round how many times the one is the other, as far as both were measured.

    Rounds lie side by side in time, so that what slows the machine down for a while cancels.
    """
    return [above / below for above, below in zip(numerators, denominators, strict=False)]
