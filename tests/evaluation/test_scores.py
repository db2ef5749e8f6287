"""Figures with intervals: points and resamples against scikit-learn, persons, and what is not defined."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss, roc_auc_score

from facefeat_jax.evaluation._bootstrap import Resamples, resampled_shares, share_interval
from facefeat_jax.evaluation.metrics import predicted, probabilities
from facefeat_jax.evaluation.scores import METRICS, head_scores, ranking, resampled_figures

COLORS = ("black", "blue", "red")


def made(outputs: int, n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that know something of the labels, labels, and a unit for each picture."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, max(outputs, 2), n)
    logits = random.normal(size=(n, outputs))
    logits[:, 0] += (labels * 2.0 - 1) if outputs == 1 else 0
    if outputs > 1:
        logits[np.arange(n), labels] += 1.0
    return logits, labels, np.arange(n).astype(str)


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_under_weights_is_scikit_learns(ties: bool) -> None:
    random = np.random.RandomState(1)
    scores = random.rand(150).round(1 if ties else 9)
    positive = random.rand(150) < 0.3 + 0.4 * scores
    weights = random.randint(0, 4, (7, 150)).astype(float)
    areas, means = ranking(scores, positive, weights)
    for row, area, mean in zip(weights, areas, means, strict=True):
        assert area == pytest.approx(roc_auc_score(positive, scores, sample_weight=row), abs=1e-12)
        assert mean == pytest.approx(average_precision_score(positive, scores, sample_weight=row), abs=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_resample_of_ones_has_the_figures_of_the_pictures(outputs: int) -> None:
    logits, labels, units = made(outputs)
    classes = COLORS if outputs > 1 else ("no", "yes")
    scores = head_scores(logits, labels, units, classes, resamples=20)

    class Once:
        def __iter__(self):
            yield np.ones((1, len(labels)))

    ranked = [1] if outputs == 1 else [0, 1, 2]
    drawn, shares = resampled_figures(Once(), logits, labels, ranked, np.unique(labels))  # type: ignore[arg-type]
    for name in METRICS:
        assert drawn[name][0] == pytest.approx(scores.values[name], abs=1e-12), name
    assert np.allclose(shares[0], scores.confusion / scores.confusion.sum(axis=1, keepdims=True))
    assert scores.values["balanced_accuracy"] == balanced_accuracy_score(labels, predicted(logits))
    probability = probabilities(logits)
    expected = brier_score_loss(labels, probability[:, 1] if outputs == 1 else probability)
    assert scores.values["brier"] == pytest.approx(expected)
    for name, value in scores.values.items():
        low, high = scores.intervals[name]
        assert low < value < high, name


def test_the_interval_of_an_accuracy_is_about_that_of_a_share() -> None:
    right = np.random.RandomState(3).rand(900) < 0.8
    shares, units = resampled_shares(right, np.arange(900).astype(str))
    exact = binomtest(int(right.sum()), 900).proportion_ci(method="wilson")
    assert share_interval(shares, right.mean(), units) == pytest.approx((exact.low, exact.high), abs=0.006)


def test_pictures_of_a_person_are_drawn_together() -> None:
    logits, labels, _ = made(1, n=100)
    # Every picture four times over: four times as many pictures, and not one more person.
    many = [np.repeat(values, 4, axis=0) for values in (logits, labels)]
    persons = np.repeat(np.arange(100), 4).astype(str)
    alone = head_scores(*many, np.arange(400).astype(str), ("no", "yes"))
    together = head_scores(*many, persons, ("no", "yes"))
    assert (alone.units, together.units, together.n) == (400, 100, 400)
    for name in METRICS:
        assert together.values[name] == alone.values[name]
        wide, narrow = (np.diff(one.intervals[name])[0] for one in (together, alone))
        assert wide > 1.5 * narrow, name


def test_resamples_are_the_same_every_time_and_draw_as_many_as_there_are() -> None:
    draws = Resamples(np.array(["a", "a", "b", "c"]), count=300)
    first, again = (np.concatenate(list(draws)) for _ in range(2))
    assert (first == again).all() and first.shape == (300, 4)
    assert (first[:, 0] == first[:, 1]).all()
    assert (first[:, 1:].sum(axis=1) == 3).all()
    assert first[:, 1:].mean() == pytest.approx(1, abs=1e-12) and first[:, 2].var() > 0.5


def test_one_class_alone_has_no_ranking_and_says_so() -> None:
    scores = head_scores(np.full((30, 1), 2.0), np.ones(30, int), np.arange(30).astype(str), ("no", "yes"))
    text = json.dumps(scores.to_json(), allow_nan=False)
    assert scores.values["auroc"] is scores.values["average_precision"] is None
    assert json.loads(text)["intervals"]["auroc"] is None
    assert any("all pictures are yes" in note and "not defined" in note for note in scores.notes)
    # All are right: a bootstrap would be sure of 100%.
    assert scores.values["accuracy"] == 1.0
    low, high = scores.intervals["accuracy"]
    assert (low, high) == pytest.approx(tuple(binomtest(30, 30).proportion_ci(method="exact")))
    assert any("exact" in note for note in scores.notes)


def test_a_class_that_no_picture_has_is_left_out_of_the_means_and_named() -> None:
    logits, labels, units = made(3)
    labels = np.where(labels == 2, 0, labels)
    scores = head_scores(logits, labels, units, COLORS)
    assert any(note.startswith("red has no picture") for note in scores.notes)
    pair = [roc_auc_score(labels == number, probabilities(logits)[:, number]) for number in (0, 1)]
    assert scores.values["auroc"] == pytest.approx(np.mean(pair))
    recalls = [np.mean(predicted(logits)[labels == number] == number) for number in (0, 1)]
    assert scores.values["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert json.loads(json.dumps(scores.to_json(), allow_nan=False))["confusion"]["shares"][2] is None


def test_a_class_that_some_resamples_miss_has_a_finite_interval() -> None:
    logits, labels, units = made(3, n=40)
    labels = np.where(labels == 2, 0, labels)
    labels[0] = 2
    scores = head_scores(logits, labels, units, COLORS)
    assert all(np.isfinite(ends).all() for ends in scores.intervals.values())
    json.dumps(scores.to_json(), allow_nan=False)


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ValueError, match="no picture"):
        head_scores(np.zeros((0, 1)), np.zeros(0, int), np.zeros(0, str), ("no", "yes"))


def test_calibration_error_lies_in_its_interval() -> None:
    random = np.random.RandomState(5)
    logits = 2 * random.normal(size=(150, 1))
    labels = (random.rand(150) < probabilities(logits)[:, 1]).astype(int)  # as calibrated as can be
    scores = head_scores(logits, labels, np.arange(150).astype(str), ("no", "yes"))
    low, high = scores.intervals["ece"]
    assert 0 <= low < scores.values["ece"] < high
