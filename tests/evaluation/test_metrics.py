"""The figures of a head, against scikit-learn's and against the rules of the baseline."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from facefeat_jax.evaluation.metrics import HeadResult, head_result, losses, predicted, probabilities


def made(outputs: int, n: int = 203, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    logits = (3 * random.normal(size=(n, outputs))).astype(np.float32)
    return logits, random.randint(0, max(outputs, 2), n)


@pytest.mark.parametrize("outputs", [1, 3, 8])
def test_agrees_with_scikit_learn(outputs: int) -> None:
    logits, labels = made(outputs)
    result = head_result(logits, labels, batch_size=32)
    probability = probabilities(logits)
    classes = max(outputs, 2)
    assert probability.shape == (203, classes)
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-12)
    assert result.loss == pytest.approx(log_loss(labels, probability, labels=range(classes)), rel=1e-9)
    assert result.accuracy == accuracy_score(labels, probability.argmax(axis=1))
    assert 0 < result.accuracy < 1
    assert result.n == 203


def test_one_logit_speaks_for_the_second_class() -> None:
    logits = np.array([[2.0], [-2.0]])
    sigmoid = 1 / (1 + np.exp(-2.0))
    assert np.allclose(probabilities(logits), [[1 - sigmoid, sigmoid], [sigmoid, 1 - sigmoid]])
    assert predicted(logits).tolist() == [1, 0]
    assert np.allclose(losses(logits, np.array([1, 1])), -np.log([sigmoid, 1 - sigmoid]))


def test_undecided_logit_is_the_first_class() -> None:
    # The notebook rounds a probability of one half to 0.
    assert predicted(np.array([[0.0], [1e-6], [-1e-6]])).tolist() == [0, 1, 0]


def test_prediction_is_the_most_probable_class() -> None:
    for outputs in (1, 8):
        logits, _ = made(outputs, seed=1)
        assert (predicted(logits) == probabilities(logits).argmax(axis=1)).all()


def test_last_batch_counts_as_much_as_the_others_in_the_mean_of_batches() -> None:
    # Losses of ln 2 in the first four, about 0 in the fifth, which is a batch of its own.
    logits = np.array([[0.0]] * 4 + [[40.0]])
    result = head_result(logits, np.ones(5, int), batch_size=2)
    assert result.loss == pytest.approx(4 / 5 * np.log(2))
    assert result.loss_of_batches == pytest.approx(2 / 3 * np.log(2))


def test_means_agree_where_all_batches_are_full() -> None:
    logits, labels = made(8, n=64)
    result = head_result(logits, labels, batch_size=16)
    assert result.loss == pytest.approx(result.loss_of_batches, rel=1e-12)


def test_mean_of_batches_follows_the_order() -> None:
    logits, labels = made(1, n=33)
    backwards = head_result(logits[::-1], labels[::-1], batch_size=32)
    forwards = head_result(logits, labels, batch_size=32)
    assert forwards.loss == pytest.approx(backwards.loss, rel=1e-12)
    assert forwards.loss_of_batches != pytest.approx(backwards.loss_of_batches, rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_saturated_logits_keep_their_loss(outputs: int) -> None:
    # In float32 the sigmoid of 200 is 1, and the loss of its log infinite or clamped; the form of logits says 200.
    logits = np.zeros((2, outputs), np.float32)
    logits[:, -1] = 200
    with np.errstate(all="raise", under="ignore"):
        loss = losses(logits, np.array([0, max(outputs, 2) - 1]))
    assert loss[0] == pytest.approx(200)
    assert loss[1] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(probabilities(logits)).all()


def test_single_precision_logits_are_summed_in_double() -> None:
    logits = np.full((100_003, 1), 0.1, np.float32)
    result = head_result(logits, np.ones(100_003, np.int32), batch_size=32)
    assert result.loss == pytest.approx(float(np.log1p(np.exp(-np.float64(np.float32(0.1))))), rel=1e-12)


def test_one_picture() -> None:
    result = head_result(np.array([[0.0, 0.0]]), np.array([0]), batch_size=32)
    assert (result.accuracy, result.n) == (1.0, 1)
    assert result.loss == result.loss_of_batches == pytest.approx(np.log(2))


def test_json_holds_plain_numbers() -> None:
    logits, labels = made(8)
    result = head_result(logits, labels, batch_size=32)
    assert HeadResult(**json.loads(json.dumps(result.to_json()))) == result
