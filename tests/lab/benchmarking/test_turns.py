"""Turns, spreads and rounds, with clocks that we turn."""

from __future__ import annotations

import pytest

from benchmarking.turns import Spread, paired_ratios, spread, take_turns
from facefeat_jax.benchmarking.measure import MOST_CALLS, Measurement, repeated


class Clock:
    """Seconds that pass only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("facefeat_jax.benchmarking.measure.time.perf_counter", clock)
    return clock


def test_sides_take_turns_and_the_order_turns_round():
    order = []
    takers = {name: lambda number, name=name: order.append((name, number)) or number for name in "ab"}
    assert take_turns(takers, 3) == {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert order == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    order.clear()
    take_turns(takers, 2, alternate=False)
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_a_side_that_drops_out_is_not_asked_again():
    asked = []

    def fails_at_1(number):
        asked.append(number)
        return None if number == 1 else number

    assert take_turns({"a": fails_at_1, "b": lambda number: number}, 4) == {"a": [0], "b": [0, 1, 2, 3]}
    assert asked == [0, 1]


def test_spread_is_median_and_extremes():
    assert spread([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0, 3)
    assert spread([]) is None


def test_ratios_are_taken_round_by_round():
    # The machine was twice as slow in the second round, for both.
    assert paired_ratios([30.0, 15.0], [20.0, 10.0]) == [1.5, 1.5]
    assert paired_ratios([30.0, 15.0], [20.0]) == [1.5]


def test_the_first_call_is_kept_apart_and_a_round_is_filled(clock):
    calls = []

    def call():
        calls.append(clock.now)
        clock.now += 9.0 if len(calls) == 1 else 0.25

    measured = repeated(call, lambda: None, images=32, seconds=2.0)
    assert measured.about == {"first_call_seconds": 9.0, "compile_seconds": 8.75, "calls_per_round": 8}
    before = len(calls)
    assert measured.round() == {"seconds": 2.0, "images": 32 * 8, "calls": 8}
    assert len(calls) == before + 8


def test_work_that_goes_on_after_the_call_is_waited_for(clock):
    under_way = []

    def wait():
        clock.now += 0.5 * len(under_way)
        under_way.clear()

    measured = repeated(lambda: under_way.append(1), wait, images=1, seconds=2.0)
    assert measured.round()["seconds"] == pytest.approx(2.0)


@pytest.mark.parametrize(("each", "calls"), [(60.0, 1), (0.0, MOST_CALLS)])
def test_a_round_has_at_least_one_call_and_not_endlessly_many(each, calls, clock):
    def call():
        clock.now += each

    assert repeated(call, lambda: None, images=1, seconds=1.0).about["calls_per_round"] == calls


def test_a_round_times_what_it_calls(clock):
    def run():
        clock.now += 3
        return {"images": 6}

    assert Measurement(run).round() == {"seconds": 3, "images": 6}
