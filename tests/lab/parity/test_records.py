"""The comparison itself: what it must see."""

from __future__ import annotations

import numpy as np
import pytest

from parity.cases import Case, multi_task_shapes, multi_task_weights
from parity.golden import summary, summary_difference
from weights_conversion._records import Record, differences, relative, split_state, without_rounding


def _record() -> Record:
    stream = np.random.RandomState(0)
    return Record(
        {"weights": {"a": stream.standard_normal((3, 4)), "b": np.zeros(5)}}, {"Adam steps": {"a": 16, "b": 48}}
    )


def _largest(ours: Record) -> dict[str, float]:
    return {row.kind: row.largest for row in differences(ours, _record())}


def test_equal_records_are_equal() -> None:
    assert _largest(_record()) == {"weights": 0.0, "Adam steps": 0.0}


def test_one_number_is_enough() -> None:
    ours = _record()
    ours.values["weights"]["a"][1, 2] += 1e-6
    assert 1e-7 < _largest(ours)["weights"] < 1e-5
    ours.values["weights"]["b"][0] = 1e-30  # where the other side has nothing but zeros
    assert _largest(ours)["weights"] == float("inf")


@pytest.mark.parametrize("change", ["missing", "surplus", "shape", "nan", "counter", "no counter", "kind"])
def test_what_is_no_number_is_infinite(change: str) -> None:
    ours = _record()
    weights = ours.values["weights"]
    if change == "missing":
        del weights["a"]
    elif change == "surplus":
        weights["c"] = np.ones(1)
    elif change == "shape":
        weights["a"] = weights["a"].T
    elif change == "nan":
        weights["a"][0, 0] = np.nan
    elif change == "counter":
        ours.counters["Adam steps"]["a"] = 17
    elif change == "no counter":
        del ours.counters["Adam steps"]["a"]
    else:
        ours.values["more"] = {"a": np.ones(1)}
    assert max(_largest(ours).values()) == float("inf")


def test_a_nan_is_not_smaller_than_anything() -> None:
    assert relative(np.array([np.nan]), np.array([1.0])) == float("inf")


def test_gradients_that_are_rounding_are_held_against_the_largest() -> None:
    """That of a bias which the next BatchNorm removes is noise on both sides; a weight of that size would count."""
    ours, theirs = ({"a": np.array([1.0, -2.0]), "bias": np.array([noise])} for noise in (1e-17, -3e-17))
    (row,) = differences(Record({"gradients": ours}), Record({"gradients": theirs}))
    assert row.largest == 2e-17 and row.where == "bias"
    (row,) = differences(Record({"weights": ours}), Record({"weights": theirs}))
    assert row.largest == pytest.approx(4 / 3)
    assert without_rounding(ours)["bias"] == 0 and without_rounding(ours)["a"] is ours["a"]


def test_a_state_dict_has_weights_statistics_and_counters() -> None:
    state = {name: array for name, array in multi_task_weights(0).items() if name.startswith("backbone.bn1.")}
    weights, statistics, counters = split_state(state)
    assert set(weights) == {"backbone.bn1.weight", "backbone.bn1.bias"}
    assert set(statistics) == {"backbone.bn1.running_mean", "backbone.bn1.running_var"}
    assert counters == {"backbone.bn1.num_batches_tracked": int(state["backbone.bn1.num_batches_tracked"])}


@pytest.mark.parametrize("where", ["kept entry", "sum"])
def test_summaries_see_changes(where: str) -> None:
    array = np.random.RandomState(1).standard_normal(1000)
    theirs = summary({"t": array})["t"]
    assert theirs.shape == (66,)
    changed = array.copy()
    if where == "kept entry":
        changed[np.flatnonzero(array == theirs[10])[0]] += 1e-6
    else:
        unkept = next(i for i in range(1000) if array[i] not in theirs[2:])
        changed[unkept] += 1e-3
    assert summary_difference(theirs, theirs, 1000) == 0
    assert summary_difference(summary({"t": changed})["t"], theirs, 1000) > 1e-7
    assert summary_difference(summary({"t": -array})["t"], theirs, 1000) > 0.1


def test_made_up_weights_are_those_of_a_trained_network() -> None:
    weights = multi_task_weights(0)
    assert {name: array.shape for name, array in weights.items()} == multi_task_shapes()
    assert len(weights) == 132
    counters = [array for name, array in weights.items() if name.endswith("num_batches_tracked")]
    assert len(counters) == 20 and all(array.dtype == np.int64 and array > 0 for array in counters)
    for name, array in weights.items():
        if array.size > 1:
            assert array.dtype == np.float64 and len(np.unique(array)) == array.size, name


def test_a_case_is_in_the_notebooks_order() -> None:
    case = Case(image_size=32, batch_size=4, steps=3, short=(1, 2, 3), epochs=2)
    batches = case.batches()
    assert [batch.task for batch in batches] == ["gender"] * 3 + ["glasses"] * 3 + ["shirt"] * 3 + ["gender"] * 3 + [
        "glasses"
    ] * 3 + ["shirt"] * 3
    assert [len(batch.labels) for batch in batches] == [4, 4, 1, 4, 4, 2, 4, 4, 3] * 2
    first, second = (np.concatenate([b.images for b in batches[s : s + 3]]) for s in (0, 9))
    assert not np.array_equal(first, second)  # shuffled anew
    assert {picture.tobytes() for picture in first} == {picture.tobytes() for picture in second}
