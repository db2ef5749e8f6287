"""Groups that are in one half only: training pictures of people who are validated are left out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from facefeat_jax.data import examples
from facefeat_jax.data.examples import open_examples
from facefeat_jax.data.selection import shared
from facefeat_jax.system.errors import UserError

CLASSES = {"glasses": ("no_glasses", "glasses")}
GROUPS = {
    ("faces", "train"): {"identity": ["1", "2", "", "3", "2", "5"], "race": ["x"] * 6},
    ("faces", "val"): {"identity": ["2", "", "3", "9"], "race": ["x"] * 4},
    ("shops", "train"): {"garment": ["a"] * 3},
    ("shops", "val"): {"garment": ["a"] * 2},
}


@pytest.fixture(autouse=True)
def splits(monkeypatch):
    def split(source, which, data_dir):
        groups = {name: np.array(values) for name, values in GROUPS[source, which].items()}
        count = len(next(iter(groups.values())))

        class Split(SimpleNamespace):
            def __len__(self):
                return count

        return Split(
            source=source,
            split=which,
            classes=CLASSES,
            labels={"glasses": np.arange(count) % 2},
            groups=groups,
            source_files=[f"{number}.jpg" for number in range(count)],
        )

    monkeypatch.setattr(examples, "open_split", split)


def test_values_that_are_shared_are_found_and_unknown_ones_are_not():
    assert shared(["a", "", "b", "a"], ["", "a"]).tolist() == [True, False, False, True]
    assert shared([], ["a"]).tolist() == []


def names(found):
    return [found.name(number) for number in range(len(found))]


def test_training_pictures_of_people_who_are_validated_are_left_out(capsys, tmp_path):
    found = open_examples(("faces", "shops"), "train", tmp_path, CLASSES, disjoint=("identity",))
    kept = ["faces/train: 0.jpg", "faces/train: 2.jpg", "faces/train: 5.jpg"]
    assert names(found) == kept + [f"shops/train: {number}.jpg" for number in range(3)]
    assert found.labels["glasses"].tolist() == [0, 0, 1, 0, 1, 0]
    said = capsys.readouterr().err
    assert "faces: 3 of 6 pictures of train are left out" in said and "identity is in val" in said
    assert "shops" not in said


def test_a_limit_counts_what_is_left(tmp_path):
    found = open_examples(("faces",), "train", tmp_path, CLASSES, disjoint=("identity",), limit=2)
    assert names(found) == ["faces/train: 0.jpg", "faces/train: 5.jpg"]
    assert len(open_examples(("faces",), "train", tmp_path, CLASSES)) == 6


def test_a_group_that_no_source_has_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"unknown group 'identiti'\. Did you mean 'identity'"):
        open_examples(("faces", "shops"), "train", tmp_path, CLASSES, disjoint=("identiti",))


def test_nothing_left_is_said(tmp_path):
    with pytest.raises(UserError, match="no picture of faces"):
        open_examples(("faces",), "train", tmp_path, CLASSES, disjoint=("race",))
