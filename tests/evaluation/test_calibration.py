"""Calibration: temperatures that are recovered, thresholds that keep what they promise, and the file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from facefeat_jax.evaluation._reliability import NUM_BINS, calibration_error, coverage_curve, reliability
from facefeat_jax.evaluation.calibration import (
    Calibration,
    HeadCalibration,
    calibrate,
    calibrate_head,
    choose_threshold,
    cross_fitted_loss,
    fit_temperature,
    fitting_part,
    least_pictures,
)
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities
from facefeat_jax.system.errors import UserError


def calibrated(outputs: int, n: int = 4000, seed: int = 0, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn with their probabilities."""
    random = np.random.RandomState(seed)
    logits = spread * random.normal(size=(n, outputs))
    below = probabilities(logits).cumsum(axis=1) < random.rand(n, 1)
    return logits, below.sum(axis=1)


@pytest.mark.parametrize("outputs", [1, 8])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_is_found_that_the_logits_were_multiplied_by(outputs: int, factor: float) -> None:
    logits, labels = calibrated(outputs)
    found = fit_temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.08)
    assert losses(factor * logits / found, labels).mean() <= losses(logits, labels).mean()
    # The least: a step either way is worse.
    for other in (found * 1.02, found / 1.02):
        assert losses(factor * logits / other, labels).mean() > losses(factor * logits / found, labels).mean()


def test_an_overconfident_head_is_mended_on_pictures_that_it_was_not_fitted_on() -> None:
    logits, labels = calibrated(1)
    fitted = calibrate_head(4 * logits[:2000], labels[:2000])
    before = calibration_error(probabilities(4 * logits[2000:]), labels[2000:])
    after = calibration_error(probabilities(4 * logits[2000:] / fitted.temperature), labels[2000:])
    assert before > 0.08 and after < 0.03


@pytest.mark.parametrize("outputs", [1, 8])
def test_calibration_error_agrees_with_scikit_learns_curve(outputs: int) -> None:
    logits, labels = calibrated(outputs, 700)
    probability = probabilities(3 * logits)
    confidence, right = probability.max(axis=1), predicted(logits) == labels
    accuracy, mean = calibration_curve(right, confidence, n_bins=NUM_BINS)
    counts = np.histogram(confidence, np.linspace(0, 1, NUM_BINS + 1))[0]
    expected = (np.abs(accuracy - mean) * counts[counts > 0]).sum() / 700
    assert calibration_error(probability, labels) == pytest.approx(expected)
    bins = reliability(probability, labels)
    assert sum(one.n for one in bins) == 700
    assert [one.accuracy for one in bins] == pytest.approx(accuracy.tolist())
    assert all(one.low < one.confidence <= one.high for one in bins)
    assert all(one.interval[0] <= one.accuracy <= one.interval[1] for one in bins)


def test_a_certain_answer_falls_into_the_last_bin() -> None:
    assert calibration_error(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1, 0])) == 0.5


def test_a_threshold_keeps_its_error_rate_on_other_pictures() -> None:
    kept = 0
    for seed in range(30):
        logits, labels = calibrated(1, 3000, seed, spread=4.0)
        probability = probabilities(logits)
        confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
        threshold = choose_threshold(confidence[:1500], right[:1500], 0.05)
        answered = confidence[1500:] >= threshold
        assert 0.2 < answered.mean() < 0.9
        kept += (~right[1500:][answered]).mean() <= 0.05
    assert kept >= 25  # of thirty; a threshold chosen without a margin keeps it in half of them


def test_rounding_moves_no_answer_that_a_threshold_was_chosen_on() -> None:
    logits, labels = calibrated(1, 1500, 0, spread=4.0)
    probability = probabilities(logits)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    threshold = choose_threshold(confidence, right, 0.05)
    assert threshold is not None
    nearest = np.abs(confidence - threshold).min()
    below, above = confidence[confidence < threshold].max(), confidence[confidence > threshold].min()
    assert nearest == pytest.approx((above - below) / 2, rel=1e-6) and nearest > 0


def test_thresholds_at_the_ends() -> None:
    sure = np.linspace(0.6, 1, 200)
    assert choose_threshold(sure, np.ones(200, bool), 0.05) == 0.0
    assert choose_threshold(sure, np.zeros(200, bool), 0.05) is None
    assert choose_threshold(sure[:10], np.ones(10, bool), 0.05) is None
    assert choose_threshold(sure, np.zeros(200, bool), 1.0) == 0.0
    # Answers of one probability stand or fall together.
    same = np.full(200, 0.9)
    assert choose_threshold(same, np.arange(200) > 100, 0.05) is None
    needed = least_pictures(0.05)
    assert needed == 59
    assert choose_threshold(sure[:needed], np.ones(needed, bool), 0.05) == 0.0
    assert choose_threshold(sure[: needed - 1], np.ones(needed - 1, bool), 0.05) is None


def test_a_head_that_knows_nothing_is_always_unsure_and_one_with_few_pictures_is_not() -> None:
    random = np.random.RandomState(0)
    guessing = calibrate_head(random.normal(size=(300, 1)), random.randint(0, 2, 300))
    assert guessing.never_sure and guessing.unsure(0.999)
    assert "always unsure" in " ".join(guessing.notes) and "--error-rate" in " ".join(guessing.notes)
    few = calibrate_head(random.normal(size=(30, 1)), random.randint(0, 2, 30))
    assert not few.never_sure and not few.unsure(0.5)
    assert "too few" in " ".join(few.notes)
    none = calibrate_head(np.zeros((3, 1)), np.zeros(3, int))
    assert none.temperature == 1.0 and "not calibrated" in none.notes[0]


def test_a_head_without_mistakes_is_not_made_surer() -> None:
    labels = np.arange(100) % 2
    found = calibrate_head((labels * 2.0 - 1)[:, None], labels)
    assert found.temperature == 1.0 and "no mistake" in found.notes[0]
    assert found.threshold == 0.0


def test_both_parts_are_the_same_in_every_run_and_share_no_person() -> None:
    units = np.array([f"glasses: person {number // 3}" for number in range(600)])
    part = fitting_part(units)
    assert 0.4 < part.mean() < 0.6
    assert not set(units[part]) & set(units[~part])
    # Whatever else there is, and in whatever order.
    chosen = np.random.RandomState(0).permutation(600)[:200]
    assert (fitting_part(units[chosen]) == part[chosen]).all()
    assert fitting_part(np.array(["fairface: val/1.jpg", "fairface: val/3.jpg", "apparel: a"])).tolist() == [
        False,
        True,
        True,
    ]


def test_coverage_curve() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.6])
    curve = coverage_curve(confidence, np.array([True, False, True, False]))
    assert [(one.threshold, one.coverage) for one in curve] == [(0.9, 0.25), (0.8, 0.75), (0.6, 1.0)]
    assert [one.accuracy for one in curve] == pytest.approx([1.0, 2 / 3, 0.5])
    assert len(coverage_curve(np.linspace(0, 1, 5000), np.ones(5000, bool))) <= 100


def test_only_the_fitting_part_is_looked_at(made_answers) -> None:
    answers = made_answers()
    first = calibrate(answers, step=7)
    answers.logits["gender"][~fitting_part(answers.units)] *= -50
    assert calibrate(answers, step=7).heads["gender"] == first.heads["gender"]
    for rate in (0.0, -1, 1.5):
        with pytest.raises(UserError, match="--error-rate"):
            calibrate(answers, step=7, error_rate=rate)


def test_a_temperature_is_used_only_where_it_helps_on_pictures_that_it_was_not_fitted_on() -> None:
    without = 0
    for seed in range(20):
        logits, labels = calibrated(1, 40, seed)  # calibrated as it is: a temperature follows single pictures
        found = calibrate_head(logits, labels)
        helps = cross_fitted_loss(logits, labels) < losses(logits, labels).mean()
        assert (found.temperature != 1.0) == helps
        assert any("no temperature" in note for note in found.notes) != helps
        without += not helps
    assert without >= 8
    logits, labels = calibrated(1, 400)
    assert calibrate_head(4 * logits, labels).temperature == pytest.approx(4, rel=0.4)


def test_cross_fitting_keeps_a_persons_pictures_together() -> None:
    """Each picture is there ten times: fitted on its copies, a temperature would look better than it is."""
    logits, labels = calibrated(1, 40, 3)
    copies = np.tile(np.arange(40), 10)
    persons = np.array([f"person {number}" for number in copies])
    together = cross_fitted_loss(logits[copies], labels[copies], persons)
    apart = cross_fitted_loss(logits[copies], labels[copies])
    assert apart < losses(logits, labels).mean() < together


def test_each_checkpoint_has_a_file_of_its_own(tmp_path) -> None:
    seventh = Calibration(7, {"gender": HeadCalibration(1.5, 0.8, 0.05, 300, notes=("a note",))})
    eighth = Calibration(8, {"gender": HeadCalibration(1.2)})
    assert Calibration.read(tmp_path, step=7) is None
    path = seventh.write(tmp_path)
    eighth.write(tmp_path)
    assert Calibration.read(tmp_path, step=7) == seventh
    assert Calibration.read(tmp_path, step=8) == eighth
    assert Calibration.read(tmp_path, step=9) is None
    shutil.copy(path, path.with_name("9.json"))
    with pytest.raises(UserError, match=r"9\.json .*belongs to step 7"):
        Calibration.read(tmp_path, step=9)
    with pytest.raises(UserError, match="a head 'gender', which the model does not have"):
        Calibration.read(tmp_path, step=7, tasks=("shirt",))


def test_a_damaged_file_is_refused_in_one_line(tmp_path) -> None:
    path = Calibration(7, {"gender": HeadCalibration(1.5, 0.8, 0.05, 300, notes=("a note",))}).write(tmp_path)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            assert Calibration.read(tmp_path, step=7).heads["gender"].temperature == 1.5
        except UserError as error:
            assert "facefeat evaluate" in str(error)
    path.write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"7\.json .*nested too deeply"):
        Calibration.read(tmp_path, step=7)


@pytest.mark.parametrize(
    "damage",
    [
        {"temperature": True},
        {"temperature": "1"},
        {"temperature": 1e-300},
        {"temperature": 0},
        {"threshold": "0.5"},
        {"threshold": 5},
        {"never_sure": "no"},
        {"n": -1},
        {"n": 1.5},
        {"error_rate": 0},
        {"notes": "text"},
        {"notes": [3]},
        {"temperatura": 1},
    ],
)
def test_that_of_an_earlier_version_is_used_for_its_checkpoint_and_its_figures_are_looked_at(tmp_path, damage) -> None:
    head = {"temperature": 1.5, "threshold": None, "error_rate": 0.05, "n": 9, "never_sure": False, "notes": []}
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"format": 1, "step": 7, "heads": {"gender": head}}))
    assert Calibration.read(tmp_path, step=7) == Calibration(7, {"gender": HeadCalibration(1.5, n=9)})
    assert Calibration.read(tmp_path, step=8) is None
    path.write_text(json.dumps({"format": 1, "step": 7, "heads": {"gender": {**head, **damage}}}))
    with pytest.raises(UserError, match=r"calibration\.json can't be read.*evaluate"):
        Calibration.read(tmp_path, step=7)
    for whole in ({"format": 9}, {"heads": 3}, {"step": "7"}, {"stap": 7}):
        path.write_text(json.dumps({"format": 1, "step": 7, "heads": {"gender": head}, **whole}))
        with pytest.raises(UserError, match=r"calibration\.json can't be read"):
            Calibration.read(tmp_path, step=7)
