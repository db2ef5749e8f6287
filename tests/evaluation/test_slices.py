"""Slices by group: gaps that are there, gaps that chance makes, groups that are predicted, blank, small or empty."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facefeat_jax.evaluation.calibration import HeadCalibration
from facefeat_jax.evaluation.metrics import predicted, probabilities
from facefeat_jax.evaluation.slices import LEAST, slice_head


def by(found, name):
    return next(one for one in found if one.by == name)


def test_a_gap_is_found_and_belongs_to_its_group(made_answers) -> None:
    answers = made_answers()
    found, notes = slice_head(answers, "gender")
    race = by(found, "race")
    assert not notes
    assert [one.value for one in race.slices] == ["Blue", "Green"]
    blue = answers.groups["race"] == "Blue"
    right = predicted(answers.logits["gender"]) == answers.labels["gender"]
    assert race.slices[0].n == blue.sum()
    assert race.slices[0].accuracy == pytest.approx(right[blue].mean())
    assert (race.lowest, race.highest) == ("Blue", "Green")
    assert race.gap == pytest.approx(1 - right[blue].mean())
    assert race.gap_interval[0] < race.gap < race.gap_interval[1]
    assert race.exceeds_chance and race.gap > 3 * race.gap_by_chance
    low, high = race.slices[0].interval
    assert low < race.slices[0].accuracy < high
    assert race.slices[1].interval[0] < race.slices[1].interval[1] == 1.0  # all right: no bootstrap knows a spread
    assert not by(found, "predicted glasses").exceeds_chance


def test_groups_that_make_no_difference_seldom_exceed_chance(made_answers) -> None:
    exceeding = 0
    for seed in range(40):
        answers = made_answers(200, seed=seed)
        random = np.random.RandomState(seed)
        answers.groups["race"] = np.array(["a", "b", "c", "d"])[random.randint(0, 4, 200)]
        found, _ = slice_head(answers, "gender", crossings=False)
        exceeding += by(found, "race").exceeds_chance
    assert exceeding <= 7  # two are expected of forty


def test_what_is_not_known_is_predicted_and_marked(made_answers) -> None:
    answers = made_answers()
    found, _ = slice_head(answers, "gender")
    assert {one.by: one.predicted for one in found} == {
        "race": False,
        "gender": False,
        "predicted glasses": True,
        "predicted shirt": True,
        "race × gender": False,
        "race × predicted glasses": True,
        "race × predicted shirt": True,
        "gender × predicted glasses": True,
        "gender × predicted shirt": True,
    }
    glasses = by(found, "predicted glasses")
    said = predicted(answers.logits["glasses"])
    assert [one.n for one in glasses.slices] == [int((said == 0).sum()), int((said == 1).sum())]


def test_a_group_of_a_heads_name_takes_the_place_of_its_prediction(made_answers) -> None:
    answers = made_answers()
    answers.groups["glasses"] = np.where(np.arange(400) < 300, "glasses", "no_glasses")
    found, _ = slice_head(answers, "gender", crossings=False)
    assert [one.n for one in by(found, "glasses").slices] == [100, 300]
    assert "predicted glasses" not in {one.by for one in found}


def test_a_group_that_is_half_empty_is_told_and_the_prediction_looked_at_too(made_answers) -> None:
    answers = made_answers()
    answers.groups["glasses"] = np.where(np.arange(400) < 150, "glasses", "")
    answers.groups["glasses"][:50] = "no_glasses"
    found, _ = slice_head(answers, "gender", crossings=False)
    known = by(found, "glasses")
    assert known.unknown == 250
    assert known.notes == ("250 of 400 pictures have no value for glasses",)
    assert sum(one.n for one in known.slices) == 150
    assert by(found, "predicted glasses").predicted


def test_empty_and_small_groups_are_shown_and_not_compared(made_answers) -> None:
    answers = made_answers()
    answers.labels["gender"] = np.where(np.arange(400) < 400 - (LEAST - 1), 0, 1)
    shirts = np.full(400, -1)
    shirts[:300] = 0
    shirts[300:] = 2
    answers.labels["shirt"] = shirts
    found, _ = slice_head(answers, "gender")
    own, shirt = by(found, "gender"), by(found, "shirt")
    assert [(one.n, one.small) for one in own.slices] == [(400 - LEAST + 1, False), (LEAST - 1, True)]
    assert own.gap is None and "nothing to compare" in own.notes[0]
    empty = shirt.slices[1]
    assert (empty.value, empty.n, empty.accuracy, empty.interval) == ("blue", 0, None, None)
    assert shirt.gap is not None
    json.dumps([one.to_json() for one in found], allow_nan=False)


def test_what_is_no_group_is_left_out_and_said(made_answers) -> None:
    answers = made_answers()
    answers.groups.update(
        file=np.arange(400).astype(str),
        identity=np.arange(400).astype(str),
        hair=np.full(400, "red"),
        eyes=np.full(400, ""),
    )
    found, notes = slice_head(answers, "gender", crossings=False)
    assert [one.by for one in found] == ["race", "gender", "predicted glasses", "predicted shirt"]
    assert notes == [
        "file: 400 different values are too many for groups",
        "hair: all pictures with a value are red",
    ]


def test_pictures_of_a_person_widen_the_interval(made_answers) -> None:
    answers = made_answers()
    alone = by(slice_head(answers, "gender", crossings=False)[0], "race").slices[0]
    answers.units[:] = np.arange(400) // 20
    together = by(slice_head(answers, "gender", crossings=False)[0], "race").slices[0]
    assert together.accuracy == alone.accuracy
    assert np.diff(together.interval)[0] != np.diff(alone.interval)[0]


def test_coverage_of_groups_is_measured_where_the_threshold_was_not_fitted(made_answers) -> None:
    answers = made_answers(600, wrong=0.0)
    blue = answers.groups["race"] == "Blue"
    answers.logits["gender"][blue] *= np.where(np.arange(blue.sum()) % 3 == 0, 0.01, 1.0)[:, None]
    calibration = HeadCalibration(temperature=2.0, threshold=0.55)
    fitted = np.arange(600) % 2 == 0
    found, _ = slice_head(answers, "gender", calibration=calibration, fitted=fitted)
    race = by(found, "race")
    answered = probabilities(answers.logits["gender"] / 2.0).max(axis=1) >= 0.55
    for group, rows in zip(race.slices, (blue & ~fitted, ~blue & ~fitted), strict=True):
        assert group.coverage.n == rows.sum() < group.n
        assert group.coverage.share == pytest.approx(answered[rows].mean())
        low, high = group.coverage.interval
        assert low <= group.coverage.share <= high
        assert group.coverage.accuracy == 1.0 and group.coverage.accuracy_interval[0] < 1.0
    assert race.coverage.exceeds_chance and not race.exceeds_chance
    assert (race.coverage.lowest, race.coverage.highest) == ("Blue", "Green")
    assert race.coverage.gap == pytest.approx(race.slices[1].coverage.share - race.slices[0].coverage.share)
    # Without a threshold, and where the head is always unsure, there is nothing to compare.
    for other in (None, HeadCalibration(), HeadCalibration(threshold=0.0), HeadCalibration(never_sure=True)):
        plain = slice_head(answers, "gender", calibration=other, fitted=fitted)[0]
        assert all(one.coverage is None and all(g.coverage is None for g in one.slices) for one in plain)
