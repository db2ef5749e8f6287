"""`prepare folder`: somebody's own pictures become a data set and a task that later commands know."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from facefeat_jax import tasks
from facefeat_jax.cli import main
from facefeat_jax.data import builders

from ..made import encoded, noise

KNOWN = dict(tasks.TASKS)


def forget() -> None:
    """Forgets the tasks and data sets of this process: the next one would not know them."""
    tasks.TASKS.clear()
    tasks.TASKS.update(KNOWN)
    builders._added.clear()


@pytest.fixture(autouse=True)
def forgotten(added_builders):
    yield
    forget()


def pictures(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(20, 20, number)))
    return folder


def table(path: Path, header: str, lines: list[str]) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def prepared(data: Path, *argv: object) -> dict[str, list[dict[str, str]]]:
    """Prepares a data set; returns the rows of its listings by split."""
    assert main(["prepare", "folder", "--data-dir", str(data), *map(str, argv)]) == 0
    found = {}
    for split in ("train", "val"):
        (listing,) = data.glob(f"*/*/records-{split}.csv")
        with listing.open(newline="") as file:
            found[split] = list(csv.DictReader(file))
    return found


def names_of(rows: list[dict[str, str]]) -> set[str]:
    return {row["source_file"] for row in rows}


@pytest.mark.parametrize("wrapped", ["", "my pictures/"])
def test_class_folders_are_split_class_by_class(tmp_path, wrapped):
    names = [f"{wrapped}{kind}/{number}.png" for kind in ("hat", "no_hat") for number in range(10)]
    folder = pictures(tmp_path / "mine", names)
    (folder / wrapped / "readme.txt").write_text("x")
    found = prepared(tmp_path / "data", "--from", folder, "--task", "headgear")
    assert [len(found[split]) for split in ("train", "val")] == [16, 4]
    assert sorted(row["label_headgear"] for row in found["val"]) == ["hat", "hat", "no_hat", "no_hat"]
    assert all(row["source_file"].split("/")[0] == row["label_headgear"] for rows in found.values() for row in rows)
    own = json.loads(next((tmp_path / "data").glob("*/*/own.json")).read_text())
    assert own["classes"] == ["no_hat", "hat"]  # the second is the one that is looked for


def test_folders_of_splits_are_heeded(tmp_path):
    names = [f"{half}/{kind}/{number}.jpg" for half in ("Train", "test") for kind in "ab" for number in range(2)]
    found = prepared(tmp_path / "data", "--from", pictures(tmp_path / "mine", names), "--task", "letter")
    assert {name.split("/")[0] for name in names_of(found["train"])} == {"Train"}
    assert {name.split("/")[0] for name in names_of(found["val"])} == {"test"}


def test_a_table_is_split_by_its_groups(tmp_path):
    folder = pictures(tmp_path / "mine", [f"{number}.png" for number in range(40)] + ["unlisted.png"])
    lines = [f"{number}.png,{'ab'[number % 2]},p{number // 4}" for number in range(40)]
    given = table(folder / "labels.csv", "File,Label,Person", [*lines, "absent.png,a,p1", "0.png,b,p0", "1.png,,p0"])
    found = prepared(tmp_path / "data", "--from", given, "--task", "letter", "--group", "Person")
    people = {split: {row["group_person"] for row in rows} for split, rows in found.items()}
    assert len(found["train"]) + len(found["val"]) == 40 and len(found["val"]) in (4, 8, 12)
    assert people["train"].isdisjoint(people["val"])
    (left_out,) = (tmp_path / "data").glob("*/*/left_out.csv")
    reasons = {row["reason"] for row in csv.DictReader(left_out.read_text().splitlines())}
    assert reasons == {"label without picture", "labelled twice", "label row not usable", "picture without label"}


def test_a_table_may_name_the_splits(tmp_path):
    folder = pictures(tmp_path / "mine", [f"{number}.png" for number in range(8)])
    lines = [f"{n}.png;{'ab'[n % 2]};{'val' if n > 5 else 'train'}" for n in range(8)]
    table(folder / "x.csv", "file;label;split", lines)
    found = prepared(tmp_path / "data", "--from", folder, "--task", "letter")
    assert names_of(found["val"]) == {"6.png", "7.png"}


@pytest.mark.parametrize(
    ("names", "argv", "hint"),
    [
        (["a/1.png", "a/2.png"], ("--task", "x"), "this has 1 (a)"),
        (["a/1.png", "b/1.png", "b/2.png"], ("--task", "x"), "class 'a' has a single picture"),
        (["1.png"], ("--task", "x"), "neither a CSV file"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], (), "--task NAME"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], ("--task", "a b"), "letters, digits and _"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], ("--task", "gender"), "already exists, with other classes"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], ("--task", "x", "--name", "apparel"), "choose another name"),
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], ("--task", "x", "--group", "p"), "--group p names a column"),
        (["train/a/1.png", "a/2.png", "b/1.png", "b/2.png"], ("--task", "x"), "give all of them one, or none"),
    ],
)
def test_what_is_no_data_set_is_refused_in_a_line(names, argv, hint, tmp_path, capsys):
    folder = pictures(tmp_path / "mine", names)
    assert main(["prepare", "folder", "--from", str(folder), "--data-dir", str(tmp_path / "data"), *argv]) == 2
    err = capsys.readouterr().err
    assert hint in err and len(err.splitlines()) == 1 and not list((tmp_path / "data").glob("*/*"))


def test_pictures_of_a_task_that_exists_take_its_classes(tmp_path):
    names = [f"{kind}/{n}.png" for kind in ("glasses", "no_glasses") for n in range(3)]
    folder = pictures(tmp_path / "mine", names)
    prepared(tmp_path / "data", "--from", folder, "--task", "glasses", "--name", "mine")
    (own,) = (tmp_path / "data").glob("mine/*/own.json")
    assert json.loads(own.read_text())["classes"] == ["no_glasses", "glasses"]


def test_prepared_again_with_other_options_it_is_refused(tmp_path, capsys):
    folder = pictures(tmp_path / "mine", [f"{kind}/{n}.png" for kind in "ab" for n in range(3)])
    argv = ["prepare", "folder", "--from", str(folder), "--task", "x", "--data-dir", str(tmp_path / "data")]
    assert main(argv) == main(argv) == 0
    said = capsys.readouterr()
    assert "nothing to do" in said.out and "next: facefeat train best --sources x --tasks x --run runs/x" in said.err
    forget()
    assert main([*argv, "--frame", "face"]) == 2
    assert "--overwrite prepares it again" in capsys.readouterr().err


def test_later_commands_know_it_from_what_lies_on_the_disk(tmp_path, small_trunk, capsys, monkeypatch):
    pictures(tmp_path / "mine", [f"{kind}/{n}.png" for kind in ("dark", "light", "mixed") for n in range(8)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))

    def call(words: str) -> str:
        forget()
        capsys.readouterr()
        assert main(words.split()) == 0
        return capsys.readouterr().out

    call("prepare folder --from mine --task tone --name tones --about-colour")
    fields = f"--trunk {small_trunk} --weights random --image-size 32 --batch-size 8 --epochs 1 --warmup-steps 0"
    call(f"train best --sources tones --tasks tone --run run --learning-rate-schedule constant {fields}")
    assert set(json.loads(call("evaluate run --json"))["heads"]) == {"tone"}
    assert json.loads(call("audit tones --json"))
    (answer,) = json.loads(call("predict run mine/dark/0.png --json"))
    assert sorted(answer["heads"]["tone"]["probabilities"]) == ["dark", "light", "mixed"]
    assert "tone" not in tasks.TASKS  # predicting needs no table
