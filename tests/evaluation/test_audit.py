"""The audit: pictures that are there twice, likely wrong labels, what goes together."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.data.dataset import Split
from facefeat_jax.data.examples import Examples
from facefeat_jax.evaluation import audit as audits
from facefeat_jax.evaluation._confident_learning import confident_errors, ranks
from facefeat_jax.evaluation._duplicates import find_pairs, take_prints
from facefeat_jax.evaluation.evaluate import answers_of_run

from ..made import encoded


class Files:
    """What stands for the pictures of a split."""

    def __init__(self, files: list[bytes]):
        self._files = files

    def read(self, index: int) -> bytes:
        return self._files[index]


def examples(files: list[bytes], split: str, glasses: list[int], **groups: list[str]) -> Examples:
    classes = {"glasses": ("no_glasses", "glasses")}
    one = Split(
        source="made",
        split=split,  # type: ignore[arg-type]
        classes=classes,
        labels={"glasses": np.array(glasses, np.int32)},
        groups={name: np.array(values, dtype=str) for name, values in groups.items()},
        source_files=[f"{split}/{number}.png" for number in range(len(files))],
        fingerprint=split,
        _pictures=Files(files),  # type: ignore[arg-type]
    )
    return Examples([one], classes)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [draw(5, number).image.resize((96, 96)) for number in range(8)]


def test_finds_the_same_file_the_same_pixels_and_nearly_the_same(pictures):
    first = pictures[0]
    recoloured = first.copy()
    ImageDraw.Draw(recoloured).rectangle((20, 60, 75, 95), fill=(255, 0, 200))
    files = [
        *map(encoded, pictures),
        encoded(first),  # 8: the same file as 0
        encoded(first, compress_level=1),  # 9: other bytes, the same pixels
        encoded(first.resize((70, 70)), "JPEG", quality=60),  # 10: nearly the same
        encoded(recoloured),  # 11: the same scene in another shirt
        encoded(first.transpose(Image.Transpose.ROTATE_180)),  # 12
    ]
    train = examples(files[:9], "train", [0] * 9)
    val = examples(files[9:], "val", [0] * 4)
    prints = take_prints([train, val])
    pairs = {(pair.first, pair.second): pair.kind for pair in find_pairs(prints)}
    assert pairs == {
        (0, 8): "file",
        (0, 9): "pixels",
        (8, 9): "pixels",
        (0, 10): "near",
        (8, 10): "near",
        (9, 10): "near",
    }


def test_pairs_are_found_across_blocks(monkeypatch, pictures):
    from facefeat_jax.evaluation import _duplicates as duplicates

    files = [encoded(pictures[number % 8]) for number in range(16)]
    prints = take_prints([examples(files, "train", [0] * 16)])
    expected = [(number, number + 8) for number in range(8)]
    for pairs_at_a_time in (1, 40, 10**6):
        monkeypatch.setattr(duplicates, "_AT_A_TIME", pairs_at_a_time)
        assert [(pair.first, pair.second) for pair in find_pairs(prints)] == expected


@pytest.fixture
def audited(monkeypatch):
    """Returns a function that audits a data set of these examples."""

    def run(train: Examples, val: Examples) -> audits.Audit:
        splits = {"train": train.splits[0], "val": val.splits[0]}
        monkeypatch.setattr(audits, "require_audit_target", lambda target, data_dir: None)
        monkeypatch.setattr(audits, "open_split", lambda target, split, data_dir: splits[split])
        return audits.audit("made")

    return run


def test_says_where_duplicates_lie_what_their_labels_are_and_whom_they_show(pictures, audited):
    train = examples([encoded(p) for p in pictures[:4]], "train", [0, 1, 0, 1], identity=["7", "8", "", "9"])
    val = examples([encoded(pictures[0]), encoded(pictures[1])], "val", [1, 1], identity=["7", "5"])
    found = audited(train, val)
    assert [(one.first, one.second, one.across) for one in found.doubles] == [
        ("made/train: train/0.png", "made/val: val/0.png", True),
        ("made/train: train/1.png", "made/val: val/1.png", True),
    ]
    assert [one.conflicts for one in found.doubles] == [("glasses",), ()]
    assert [one.same_person for one in found.doubles] == [True, False]
    assert found.persons_across == (1, 1)
    assert audited(examples([], "train", []), examples([], "val", [])).persons_across is None


def test_links_tell_what_goes_together(pictures, audited):
    glasses = [0, 1] * 20
    train = examples(
        [encoded(pictures[0])] * 40,
        "train",
        glasses,
        gender=[["female", "male"][number] for number in glasses],
        hair=["long", "long", "short", "short"] * 10,
        blank=["x", ""] * 20,
    )
    links = audited(train, examples([], "val", [], gender=[], hair=[], blank=[])).links
    assert [(one.second, round(one.strength, 3)) for one in links] == [("gender", 1.0), ("hair", 0.0)]
    assert links[0].counts == {"glasses": {"female": 0, "male": 20}, "no_glasses": {"female": 20, "male": 0}}


def test_of_a_data_set(avatars_dir, tmp_path, capsys):
    assert main(["audit", "avatars", "--data-dir", str(avatars_dir), "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["balance"]["train"]["pictures"] == 44
    assert sum(found["balance"]["val"]["groups"]["skin"].values()) == 20
    assert not any(found["duplicates"]["counts"].values()) and found["highest_loss"] == {}
    assert found["persons_across"] is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.html", "audit.json", "duplicates.csv"]


def test_of_a_run_lists_what_the_model_contradicts_by_its_loss(trained_run, tmp_path, capsys):
    assert main(["audit", str(trained_run), "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    answers = answers_of_run(trained_run).answers
    rows = list(csv.DictReader((tmp_path / "highest_loss.csv").read_text().splitlines()))
    for task, names in answers.classes.items():
        listed = [row for row in rows if (row["head"], row["split"]) == (task, "val")]
        logits, labels = answers.labelled(task)
        said = (logits[:, 0] > 0).astype(int) if len(names) == 2 else logits.argmax(axis=1)
        wrong = {str(answers.names[number]) for number in np.flatnonzero(said != labels)}
        assert {row["file"] for row in listed} == wrong
        losses = [float(row["loss"]) for row in listed]
        assert losses == sorted(losses, reverse=True)
        confident = [row["confident"] == "yes" for row in sorted(listed, key=lambda row: int(row["rank"]))]
        assert confident == sorted(confident, reverse=True)
        assert f"{task}, val: {len(listed)} labels contradicted" in told
    page = (tmp_path / "audit.html").read_text()
    assert page.count("<img ") >= min(24, len(rows))
    assert "://" not in page and "<script" not in page


def test_wrong_names_are_answered_in_a_line(tmp_path, capsys):
    for target, hint in (("avatrs", "Did you mean 'avatars'"), (str(tmp_path), "neither a data set")):
        assert main(["audit", target, "--data-dir", str(tmp_path)]) == 2
        assert hint in capsys.readouterr().err


def test_confident_errors_and_their_order_are_cleanlabs():
    """What cleanlab 2.9 says of made-up answers; `cleanlab.json` has its versions and calls."""
    oracle = json.loads((Path(__file__).parent / "cleanlab.json").read_text())
    for case in oracle["cases"]:
        probability, labels = cleanlab_case(case["seed"], case["classes"])
        confident = confident_errors(probability, labels)
        assert np.flatnonzero(confident).tolist() == sorted(case["issues"])
        rank = ranks(probability, labels)
        ours = [int(at) for at in np.argsort(rank)[: confident.sum()]]
        assert ours == case["issues"]
        assert sorted(rank.tolist()) == list(range(1, len(labels) + 1))
        assert confident[np.argsort(rank)].tolist() == sorted(confident.tolist(), reverse=True)


def cleanlab_case(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities `[200, classes]` and labels, one in ten of them wrong; the stream never changes."""
    random = np.random.RandomState(seed)
    truth = random.randint(0, classes, 200)
    logits = random.normal(size=(200, classes)) + 2.5 * np.eye(classes)[truth]
    labels = np.where(random.rand(200) < 0.1, (truth + 1) % classes, truth)
    every = np.exp(logits)
    return every / every.sum(axis=1, keepdims=True), labels
