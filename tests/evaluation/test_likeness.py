"""Whether a picture is like the training pictures: the distance, the test before an answer is withheld, the files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.data._frames import inside
from facefeat_jax.evaluation import _likeness_check as check
from facefeat_jax.evaluation._likeness import LEAST, RANK, HeadLikeness, Likeness, fit_heads
from facefeat_jax.prediction.predictor import Predictor
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system.errors import UserError

pytestmark = pytest.mark.long


def drawn_features(n: int, seed: int, width: int = 40, shift: float = 0.0) -> np.ndarray:
    random = np.random.RandomState(seed)
    scale = 0.02 + 0.2 * (np.arange(width) < 5)
    return (np.abs(1 + shift * (np.arange(width) % 2) + scale * random.normal(size=(n, width)))).astype(np.float32)


def test_the_distance_is_that_of_the_kept_covariance() -> None:
    features = drawn_features(400, 0)
    head = HeadLikeness.fit(features)
    assert head.basis.shape == (RANK, 40) and head.n == 400
    scaled = np.sqrt(features.astype(np.float64))
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    kept = head.basis.T * head.variances @ head.basis
    covariance = kept + head.rest * (np.eye(40) - head.basis.T @ head.basis)
    offset = scaled - head.mean
    np.testing.assert_allclose(
        head.distance(features), (offset @ np.linalg.inv(covariance) * offset).sum(axis=1), rtol=1e-3
    )
    # Neither how strong the features are, nor how many pictures there are, changes it.
    np.testing.assert_allclose(head.distance(features * 8), head.distance(features))
    np.testing.assert_allclose(head.distance(features[:3]), head.distance(features)[:3])
    assert HeadLikeness.fit(drawn_features(8, 0)).basis.shape == (2, 40)


def test_few_of_a_heads_own_pictures_and_most_others_are_unlike(made_answers) -> None:
    answers = dataclasses.replace(made_answers(2000), features=drawn_features(2000, 1))
    heads = fit_heads(answers)
    assert list(heads) == ["gender"]  # no picture has another label
    assert heads["gender"].unlike(drawn_features(2000, 2)).mean() == pytest.approx(0.01, abs=0.01)
    assert heads["gender"].unlike(drawn_features(200, 3, shift=0.5)).mean() > 0.95
    assert not fit_heads(made_answers(2000))
    few = made_answers(LEAST + 20)
    assert not fit_heads(dataclasses.replace(few, features=drawn_features(len(few), 1)))


def test_an_answer_is_withheld_only_where_the_test_holds() -> None:
    head = HeadLikeness.fit(drawn_features(300, 0))
    own, far = drawn_features(300, 4), drawn_features(100, 5, shift=0.5)
    head = dataclasses.replace(head, threshold=float(np.quantile(head.distance(own), 0.99)))
    passed = check._tested(head, own, {"noise": far}, drawn_features(100, 6))
    assert passed.withholds and "answered with unsure" in passed.notes[0]
    for others, kin in (
        ({"noise": far, "scenes": drawn_features(100, 8)}, drawn_features(100, 6)),
        ({"noise": far}, far),
    ):
        failed = check._tested(head, own, others, kin)
        assert not failed.withholds and "noted, and answered" in failed.notes[0]


def test_a_file_that_the_head_has_a_label_for_is_no_other_source(monkeypatch) -> None:
    monkeypatch.setattr(check, "LEAST", 2)
    spec = SimpleNamespace(frames={"gender": "face", "glasses": "head", "smile": "face"})
    labels = {"gender": [0, 1, -1, -1, -1], "glasses": [-1, -1, 0, 1, 1], "smile": [-1, -1, 0, 0, -1]}
    answers = SimpleNamespace(classes=labels, labels={task: np.array(values) for task, values in labels.items()})
    # The third picture is the file of the first.
    digests = np.array([7, 8, 7, 9, 10])
    found = check._kin(answers, digests, spec, "gender")
    assert [number for number, _ in found] == [3, 4]


def test_faces_of_another_set_are_cut_as_the_head_takes_them() -> None:
    left, top, right, bottom = inside("head", "face")
    assert (left, top) == pytest.approx(((0.85 - 0.52) / 1.71, (1.19 - 0.43) / 2.09))
    assert (right, bottom) == pytest.approx(((0.85 + 0.54) / 1.71, (1.19 + 0.63) / 2.09))
    assert inside("face", "head") is None and inside("whole", "face") is None
    assert inside("face", "face") == pytest.approx((0, 0, 1, 1))


def test_training_leaves_it_beside_the_calibration(tiny, avatars_dir, tmp_path, monkeypatch) -> None:
    from facefeat_jax.commands import train
    from facefeat_jax.evaluation import _likeness as likeness

    monkeypatch.setattr(likeness, "LEAST", 5)
    train(tiny(tmp_path / "run", epochs=1))
    step = open_run(tmp_path / "run").step
    found = Likeness.read(tmp_path / "run", step=step, tasks=("gender", "glasses", "shirt"))
    assert found.drawn and set(found.heads) == {"gender", "glasses", "shirt"}
    for head in found.heads.values():
        assert not head.withholds and "are drawn" in head.notes[0] and np.isfinite(head.threshold)
    assert (tmp_path / "run" / "model-card.md").read_text().count("the training pictures are drawn") == 3
    # An evaluation of the same pictures says the same, but for rounding in another program.
    assert main(["evaluate", str(tmp_path / "run"), "--data-dir", str(avatars_dir)]) == 0
    again = Likeness.read(tmp_path / "run", step=step, tasks=("gender", "glasses", "shirt"))
    for task, head in found.heads.items():
        assert again.heads[task].threshold == pytest.approx(head.threshold, rel=1e-2)
        np.testing.assert_allclose(again.heads[task].mean, head.mean, atol=1e-5)


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A run that finds every picture unlike: its gender head withholds the answer, its glasses head does not."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    opened = open_run(folder)
    width = opened.model.trunk.num_features
    head = HeadLikeness(
        np.zeros(width, np.float32), np.eye(2, width, dtype=np.float32), np.ones(2, np.float32), 0.5, -1.0, n=60
    )
    heads = {"gender": dataclasses.replace(head, withholds=True), "glasses": head}
    Likeness(opened.step, False, heads).write(folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    draw(3, 1).image.save(path)
    return path


def said(capsys, *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_predict_withholds_or_notes_and_goes_on_as_before_without_the_file(run, picture, trained_run, capsys) -> None:
    text = said(capsys, "predict", run, picture)
    assert "gender: unsure (unlike the training pictures)  " in text and "glasses: unsure" not in text
    assert "(unlike the training pictures of glasses; if it shows more than a face, try --faces)" in text

    def answer(folder: Path) -> dict:
        # A program that returns the features as well rounds otherwise.
        said_in_json = said(capsys, "predict", folder, picture, "--json")
        return json.loads(said_in_json, parse_float=lambda text: round(float(text), 5))[0]

    found, before = answer(run), answer(trained_run)
    assert found["heads"]["gender"].pop("unlike") and found["heads"]["gender"]["unsure"]
    assert "unlike" not in found["heads"]["glasses"] and not found["heads"]["glasses"]["unsure"]
    found["heads"]["gender"]["unsure"] = before["heads"]["gender"]["unsure"]
    assert found["heads"] == before["heads"]
    next((run / "likeness").glob("*.json")).unlink()
    assert said(capsys, "predict", run, picture, "--json") == said(capsys, "predict", trained_run, picture, "--json")
    assert Predictor.from_run(run).fingerprint() == Predictor.from_run(trained_run).fingerprint()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_export_carries_it(run, picture, tmp_path, suffix, capsys) -> None:
    said(capsys, "export", run, tmp_path / f"model{suffix}")
    said(capsys, "convert", tmp_path / f"model{suffix}", "--to", tmp_path / "again")
    before = said(capsys, "predict", run, picture, "--json")
    assert said(capsys, "predict", tmp_path / "again", picture, "--json") == before and '"unlike": true' in before


def test_drawings_alone_are_said_once_before_the_first_answer_about_another_picture(run, picture, capsys) -> None:
    path = next((run / "likeness").glob("*.json"))
    step = int(path.stem)
    found = Likeness.read(run, step=step, tasks=("gender", "glasses", "shirt"))
    assert found is not None
    dataclasses.replace(found, drawn=True).write(run)
    assert main(["predict", str(run), str(picture), str(picture)]) == 0
    assert capsys.readouterr().err.count("was trained on drawings alone; its answers for photographs mean nothing") == 1
    like = {task: dataclasses.replace(head, threshold=1e9) for task, head in found.heads.items()}
    Likeness(step, True, like).write(run)
    assert main(["predict", str(run), str(picture)]) == 0
    assert "drawings" not in capsys.readouterr().err


def test_a_changed_file_is_refused_in_a_line(run, picture, capsys) -> None:
    path = next((run / "likeness").glob("*.json"))
    whole = path.read_bytes()
    random = np.random.RandomState(0)
    for place in random.randint(0, len(whole), 12):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.randint(7)
        path.write_bytes(flipped)
        try:
            same = json.loads(flipped) == json.loads(whole)
        except ValueError:
            same = False
        if not same:
            with pytest.raises(UserError, match=r"likeness.\d+\.json can't be read"):
                Likeness.read(run, step=int(path.stem), tasks=("gender", "glasses", "shirt"))
    assert main(["predict", str(run), str(picture)]) == 2
    assert f"likeness/{path.name} can't be read" in capsys.readouterr().err
    for change in (
        {"mean": ""},
        {"basis": "AAAA"},
        {"rest": 0.0},
        {"variances": "AAAAAAAAAAA="},
        {"n": "3"},
        {"more": 1},
    ):
        content = json.loads(whole)
        content["heads"]["gender"].update(change)
        with pytest.raises(ValueError):
            Likeness.from_json({k: content[k] for k in ("step", "drawn", "heads")}, tasks=("gender", "glasses"))
