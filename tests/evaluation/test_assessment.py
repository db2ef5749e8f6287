"""The evaluation of a run as a whole: what `evaluate` prints and leaves, and what `predict` makes of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax import Predictor
from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.evaluation._likeness import HeadLikeness, Likeness
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.assessment import assess, largest_gaps
from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration, calibrate, fitting_part
from facefeat_jax.evaluation.scores import METRICS
from facefeat_jax.reporting.table import gap_lines, scores_table
from facefeat_jax.runs import _about as about_item
from facefeat_jax.runs.run_folder import read_config, write_config
from facefeat_jax.system.errors import UserError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a trained run, to be written into."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained_run, folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(run: Path) -> Path:
    for name in ("calibration/12.json", "report.html", "model-card.md"):
        (run / name).unlink(missing_ok=True)
    assert main(["evaluate", str(run), "--error-rate", "0.2"]) == 0
    return run


def test_evaluate_leaves_json_csv_calibration_report_and_model_card(evaluated: Path, capsys) -> None:
    found = json.loads((evaluated / "evaluation" / "evaluation.json").read_text())
    results = json.loads((evaluated / "results.json").read_text())["heads"]
    for task, figures in found["heads"].items():
        for name in ("accuracy", "loss", "loss_of_batches", "n"):
            assert figures[name] == pytest.approx(results[task][name], rel=1e-5)
        assert set(METRICS) <= figures.keys()
        assert {one["by"] for one in figures["slices"]} >= {"skin", "gender", "glasses"}
        assert figures["calibration"]["n"] + figures["calibration"]["n_reported"] == 20
    rows = list(csv.DictReader((evaluated / "evaluation" / "heads.csv").read_text().splitlines()))
    assert [(row["head"], row["figure"]) for row in rows] == [
        (task, name) for task in ("gender", "glasses", "shirt") for name in METRICS
    ]
    assert float(rows[0]["value"]) == pytest.approx(found["heads"]["gender"]["accuracy"], abs=1e-6)
    slices = list(csv.DictReader((evaluated / "evaluation" / "slices.csv").read_text().splitlines()))
    skins = [row for row in slices if (row["head"], row["by"]) == ("shirt", "skin")]
    assert sum(int(row["pictures"]) for row in skins) == 20
    predictions = list(csv.DictReader((evaluated / "evaluation" / "predictions.csv").read_text().splitlines()))
    assert len(predictions) == 20
    right = np.mean([row["gender_label"] == row["gender_predicted"] for row in predictions])
    assert right == pytest.approx(found["heads"]["gender"]["accuracy"])
    assert Calibration.read(evaluated, step=12).heads["gender"].error_rate == 0.2
    page = (evaluated / "report.html").read_text()
    for heading in ("All metrics", "By group", "Confusion", "How reliable", "Wrong answers"):
        assert heading in page
    card = (evaluated / "model-card.md").read_text()
    assert "label that a data set gives" in " ".join(card.split())
    assert "facefeat train" not in card.split("## Intended use")[1]
    assert "Groups on which it fails" in card and "Apache-2.0" in card and "&#39;" not in card


def test_other_data_are_kept_apart_and_the_runs_calibration_is_applied(evaluated: Path, avatars_dir, capsys) -> None:
    # The same pictures under another name would need another data set; a run of other sources takes these as foreign.
    config = read_config(evaluated)
    before = (evaluated / "calibration" / "12.json").read_bytes()
    write_config(evaluated, config.replace(sources=("glasses",)))
    try:
        argv = ["evaluate", str(evaluated), "--data", "avatars", "--data-dir", str(avatars_dir), "--json"]
        assert main(argv) == 0
    finally:
        write_config(evaluated, config)
    found = json.loads(capsys.readouterr().out)
    assert not found["calibrated_on_part"]
    assert found["heads"]["shirt"]["calibration"]["n_reported"] == 20
    assert (evaluated / "evaluation-avatars" / "evaluation.json").exists()
    assert (evaluated / "calibration" / "12.json").read_bytes() == before


def test_predict_applies_temperature_and_threshold(run: Path, tmp_path: Path, capsys) -> None:
    pictures = []
    for number in range(4):
        pictures.append(tmp_path / f"{number}.png")
        draw(9, number).image.save(pictures[-1])
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "calibration" / "12.json").unlink()
    plain = Predictor.from_run(copy).predict(pictures)
    least = sorted(one.heads["gender"].probability for one in plain)
    heads = {"shirt": HeadCalibration(temperature=4.0), "gender": HeadCalibration(threshold=(least[1] + least[2]) / 2)}
    Calibration(12, heads).write(copy)
    scaled = Predictor.from_run(copy).predict(pictures)
    for one, other in zip(plain, scaled, strict=True):
        assert other.heads["shirt"].label == one.heads["shirt"].label
        logs = [np.log(list(answer.heads["shirt"].probabilities.values())) for answer in (one, other)]
        assert np.allclose(np.diff(logs[0]) / 4, np.diff(logs[1]), atol=1e-5)
        assert other.heads["gender"].probability == pytest.approx(one.heads["gender"].probability)
        assert other.heads["gender"].unsure == (one.heads["gender"].probability < heads["gender"].threshold)
    assert sum(one.heads["gender"].unsure for one in scaled) == 2
    assert main(["predict", str(copy), *map(str, pictures)]) == 0
    assert capsys.readouterr().out.count("gender: unsure (") == 2
    assert main(["predict", str(copy), *map(str, pictures), "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["gender_unsure"] for row in rows].count("yes") == 2
    # A calibration of other weights is none.
    (copy / "calibration" / "12.json").unlink()
    Calibration(11, heads).write(copy)
    again = Predictor.from_run(copy).predict(pictures)
    assert [one.heads["shirt"].probability for one in again] == [one.heads["shirt"].probability for one in plain]


def test_where_nothing_can_be_written_the_figures_are_printed_all_the_same(run: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluation")
    (tmp_path / "run" / "evaluation").write_text("in the way")
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["heads"] and "not everything was saved" in said.err


def test_calibration_is_checked_on_the_other_part(made_answers) -> None:
    answers = made_answers(wrong=0.3)
    made = assess(answers, calibrate(answers, step=1), data=("made",), batch_size=32, on_part=True)
    assert list(made.scores) == ["gender"] and list(made.calibration) == ["gender"]
    check = made.calibration["gender"]
    assert check.before.n == int((~fitting_part(answers.units)).sum())
    assert check.fitted.n + check.before.n == 400
    assert check.after.values["loss"] < check.before.values["loss"]
    assert check.after.values["accuracy"] == check.before.values["accuracy"]
    gaps = largest_gaps(made.slicings)
    assert [(one.head, one.by) for one in gaps] == [("gender", "race")]
    assert "from Blue to Green" in gap_lines(made)[0]
    lines = scores_table(made.scores).splitlines()
    assert lines[2].split()[0] == "gender" and lines[2].split()[-1] == "400"
    json.dumps(made.to_json(), allow_nan=False)


def test_a_temperature_that_makes_other_pictures_worse_is_reported_with_a_paired_interval(made_answers) -> None:
    answers = made_answers(wrong=0.5)
    calibration = calibrate(answers, step=1)
    assert calibration.heads["gender"].temperature > 1.5
    helped = assess(answers, calibration, data=("made",), batch_size=32, on_part=True).calibration["gender"]
    low, high = helped.loss_change_interval
    assert low < helped.loss_change < high < 0 and helped.notes == helped.fitted.notes
    # On the reported part the head is right and not as sure as it could be.
    other = ~fitting_part(answers.units)
    sign = 2.0 * answers.labels["gender"][other] - 1
    answers.logits["gender"][other] = (sign * np.abs(answers.logits["gender"][other, 0]))[:, None]
    made = assess(answers, calibration, data=("made",), batch_size=32, on_part=True)
    told = " ".join(gap_lines(made))
    assert "the temperature makes the loss worse" in told
    found = json.loads(json.dumps(made.to_json(), allow_nan=False))["heads"]["gender"]["calibration"]
    low, high = found["interval_of_loss_change"]
    assert 0 < low < found["loss_change"] < high
    assert found["loss_change"] == pytest.approx(found["after"]["loss"] - found["before"]["loss"])
    # Of the same pictures before and after: narrower than the two apart.
    apart = [found[when]["intervals"]["loss"] for when in ("before", "after")]
    assert high - low < max(ends[1] - ends[0] for ends in apart)


def test_evaluating_the_best_checkpoint_leaves_the_newest_ones_calibration(trained_run, tmp_path, capsys) -> None:
    copy, picture = tmp_path / "run", tmp_path / "0.png"
    shutil.copytree(trained_run, copy)
    draw(9, 0).image.save(picture)
    newest = copy / "checkpoints" / "12"
    about = about_item.read(newest).content
    for entry in about["history"]:
        entry["accuracy"] = float(entry["epoch"] == 1)  # as if the first epoch had been the best
    about_item.replace(newest, about, about["digests"])
    Calibration(12, {"shirt": HeadCalibration(temperature=4.0)}).write(copy)

    def predicted() -> str:
        assert main(["predict", str(copy), str(picture), "--format", "csv"]) == 0
        return capsys.readouterr().out

    before = predicted()
    assert main(["evaluate", str(copy), "--checkpoint", "best"]) == 0
    capsys.readouterr()
    assert predicted() == before
    assert sorted(path.name for path in (copy / "calibration").iterdir()) == ["12.json", "6.json"]
    (copy / "calibration" / "12.json").unlink()
    assert predicted() != before


def test_answers_that_are_withheld_count_as_not_given(made_answers) -> None:
    """Coverage of all pictures, and by group: half of one group is unlike the training pictures."""
    answers = made_answers(wrong=0.1)
    calibration = Calibration(1, {"gender": HeadCalibration(threshold=0.65)})
    strange = (answers.groups["race"] == "Blue") & (np.arange(len(answers)) % 2 == 0)
    features = np.where(strange, 9.0, 1.0)[:, None] * np.array([1.0, 0.0]) + np.array([0.0, 1.0])
    answers = dataclasses.replace(answers, features=features.astype(np.float32))
    head = HeadLikeness.fit(features[~strange] + np.random.RandomState(0).normal(0, 0.01, features[~strange].shape))
    head = dataclasses.replace(head, threshold=100.0)

    def coverages(withholds: bool):
        likeness = Likeness(1, False, {"gender": dataclasses.replace(head, withholds=withholds)})
        made = assess(answers, calibration, data=("made",), batch_size=32, on_part=True, likeness=likeness)
        by_race = next(one for one in made.slicings["gender"] if one.by == "race")
        return made.calibration["gender"].coverage, {one.value: one.coverage.share for one in by_race.slices}

    every, groups = coverages(False)
    fewer, halved = coverages(True)
    assert fewer < every and halved["Green"] == groups["Green"]
    assert halved["Blue"] == pytest.approx(groups["Blue"] / 2, abs=0.1)


def test_one_class_only_is_said_and_no_nan_is_printed(made_answers, capsys) -> None:
    answers = made_answers(60)
    answers.labels["gender"][:] = 1
    made = assess(answers, calibrate(answers, step=1), data=("made",), batch_size=32, on_part=True)
    text = scores_table(made.scores) + "\n".join(gap_lines(made)) + json.dumps(made.to_json(), allow_nan=False)
    assert "nan" not in text.lower()
    assert "need two classes" in text
    assert " - " in scores_table(made.scores)


def test_logits_that_are_not_finite_are_refused(made_answers) -> None:
    answers = made_answers(10)
    broken = {**answers.logits, "shirt": np.full((10, 3), np.nan)}
    with pytest.raises(UserError, match=r"'shirt' .*not finite on 10 of 10"):
        Answers(answers.classes, broken, answers.labels, answers.groups, answers.names, answers.units)
