"""A run knows its data: what resume, evaluate and audit answer where the data were prepared anew, or are others."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax.cli import main
from facefeat_jax.data.builders import add_builder
from facefeat_jax.data.builders.apparel import Apparel
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.prepare import prepare
from facefeat_jax.runs.data_record import DataRecord, Part, difference
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import SHIRT_CLASSES

from ..made import encoded, noise

pytestmark = pytest.mark.long

EACH = 40


def png(seed: int) -> bytes:
    return encoded(noise(12, 12, seed))


PICTURES = {
    f"{colour}_shirt/{number:02}.png": png(EACH * place + number)
    for place, colour in enumerate(SHIRT_CLASSES)
    for number in range(EACH)
}


def prepared(files: dict[str, bytes], folder: Path, source: str = "apparel") -> Path:
    """Prepares pictures as a data set; returns the folder of prepared data."""
    download = folder / "download"
    for name, content in files.items():
        (download / name).parent.mkdir(parents=True, exist_ok=True)
        (download / name).write_bytes(content)
    prepare(source, download, folder / "data", overwrite=True, progress=False)
    return folder / "data"


@pytest.fixture(scope="module")
def command(small_trunk) -> Callable[..., list[str]]:
    """Returns a function that makes the command that trains the run, or resumes it."""

    def make(run: Path, data: Path, *more: str) -> list[str]:
        fields = {"run": run, "data-dir": data, "sources": "apparel", "tasks": "shirt", "trunk": small_trunk}
        fields |= {"image-size": 16, "epochs": 1, "batch-size": 32, "warmup-steps": 0, "trainable": "none"}
        return [
            "train",
            "avatars",
            *(str(part) for pair in fields.items() for part in ("--" + pair[0], pair[1])),
            *more,
        ]

    return make


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory) -> tuple[Path, Path]:
    """A run on 256 pictures, validated on 64, and the folder of its data."""
    folder = tmp_path_factory.mktemp("trained")
    data = prepared(PICTURES, folder)
    assert main(command(folder / "run", data)) == 0
    return folder / "run", data


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


@pytest.fixture
def seen(trained) -> set[bytes]:
    """The files that it was trained on."""
    split = open_split("apparel", "train", trained[1])
    return {split.read(number) for number in range(len(split))}


def contents(data: Path, *splits: str, source: str = "apparel") -> dict[str, bytes]:
    """Returns the pictures of prepared data, by what tables call them."""
    found = {}
    for name in splits:
        split = open_split(source, name, data)  # type: ignore[arg-type]
        found |= {f"{source}/{name}: {file}": split.read(at) for at, file in enumerate(split.source_files)}
    return found


def evaluated(folder: Path) -> set[str]:
    return {row["file"] for row in csv.DictReader((folder / "predictions.csv").read_text().splitlines())}


def removed() -> dict[str, bytes]:
    return {name: content for at, (name, content) in enumerate(PICTURES.items()) if at % 12}


def renamed() -> dict[str, bytes]:
    return {f"{name.split('/')[0]}/{hash_of(content)}.png": content for name, content in PICTURES.items()}


def swapped() -> dict[str, bytes]:
    order = np.random.RandomState(1).permutation(len(PICTURES))
    return dict(zip(PICTURES, [list(PICTURES.values())[at] for at in order], strict=True))


def hash_of(content: bytes) -> int:
    return sum(content[50:90])


def test_on_the_same_data_nothing_is_reported_and_the_figures_are_the_trainings(run, capsys):
    assert main(["evaluate", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    figures, trained_figures = json.loads(out), json.loads((run / "results.json").read_text())["heads"]["shirt"]
    assert figures["notes"] == [] and figures["pictures"] == 64
    assert figures["heads"]["shirt"]["loss"] == pytest.approx(trained_figures["loss"], rel=1e-6)
    assert all(line.startswith("wrote ") for line in err.splitlines())


@pytest.mark.parametrize("changed", [removed, renamed, swapped])
def test_data_that_were_prepared_anew(run, seen, command, changed, tmp_path, capsys):
    data = prepared(changed(), tmp_path)
    before = (run / "results.json").read_bytes()
    assert main(command(run, data, "--resume")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the data are not those that" in line and "apparel train: " in line and "apparel val: " in line
    assert (run / "results.json").read_bytes() == before

    assert main(["evaluate", str(run), "--data-dir", str(data)]) == 0
    err = capsys.readouterr().err
    val = contents(data, "val")
    wanted = {name for name, content in val.items() if content not in seen}
    assert 10 <= len(wanted) < len(val) and evaluated(run / "evaluation") == wanted
    assert f"{len(val) - len(wanted)} of {len(val)} validation pictures of apparel " in err
    assert "the data are not those of" in err
    assert len(json.loads((run / "evaluation" / "evaluation.json").read_text())["notes"]) == 2

    assert main(["audit", str(run), "--data-dir", str(data), "--json"]) == 0
    everything, found = contents(data, "train", "val"), json.loads(capsys.readouterr().out)
    trained_on = {name for name, content in everything.items() if content in seen}
    assert found["balance"]["train"]["pictures"] == len(trained_on)
    assert found["balance"]["val"]["pictures"] == len(everything) - len(trained_on)
    for row in csv.DictReader((run / "audit" / "highest_loss.csv").read_text().splitlines()):
        assert (row["split"] == "train") == (row["file"] in trained_on)
    assert any("are still there" in note for note in found["notes"])


def test_labels_that_were_mended(run, trained, command, tmp_path, capsys):
    data = Path(shutil.copytree(trained[1], tmp_path / "data"))
    (listing,) = data.glob("apparel/*/records-val.csv")
    lines = listing.read_text().splitlines()
    lines[1] = lines[1].replace(*(",red,", ",blue,") if ",red," in lines[1] else (lines[1].split(",")[6], "red"))
    listing.write_text("\n".join(lines) + "\n")
    assert main(command(run, data, "--resume")) == 2
    assert "apparel val: 1 of 64 pictures have another label" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--data-dir", str(data)]) == 0
    assert "apparel val: 1 of 64 pictures have another label" in capsys.readouterr().err


def test_where_all_was_trained_on_evaluate_refuses(run, seen, tmp_path, capsys):
    val = iter(sorted(seen))
    data = prepared({name: next(val) for name in list(PICTURES)[:100]}, tmp_path)
    assert main(["evaluate", str(run), "--data-dir", str(data)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was trained on 20 of the 20 validation pictures of apparel, and the 0 others are too few" in line


@pytest.mark.usefixtures("added_builders")
def test_other_data_that_share_pictures(run, seen, tmp_path, capsys):
    class Shop(Apparel):
        SOURCE = dataclasses.replace(Apparel.SOURCE, name="shop")

    add_builder(Shop)
    fresh = {f"red_shirt/new{number}.png": png(10_000 + number) for number in range(160)}
    data = prepared({**fresh, **dict(list(renamed().items())[:160])}, tmp_path, "shop")
    assert main(["evaluate", str(run), "--data", "shop", "--data-dir", str(data)]) == 0
    err = capsys.readouterr().err
    val = contents(data, "val", source="shop")
    wanted = {name for name, content in val.items() if content not in seen}
    assert len(wanted) < len(val) and evaluated(run / "evaluation-shop") == wanted
    assert f"{len(val) - len(wanted)} of {len(val)} validation pictures of shop " in err and "left out" in err


@pytest.mark.parametrize("name", ["data.json", "data.npy"])
def test_a_damaged_record_is_refused(run, trained, command, name, capsys):
    content = bytearray((run / name).read_bytes())
    for place in np.random.RandomState(0).randint(0, len(content), 20):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << (place % 7)
        (run / name).write_bytes(spoilt)
        with pytest.raises(UserError, match=r"can't be read .*restore it") as caught:
            DataRecord.read(run)
    assert main(["audit", str(run)]) == 2
    assert capsys.readouterr().err == f"facefeat: {caught.value}\n"
    (run / name).unlink()
    assert main(command(run, trained[1], "--resume")) == 2


def test_data_that_an_earlier_version_prepared_have_the_same_identity(run, trained, command, tmp_path, capsys):
    data = Path(shutil.copytree(trained[1], tmp_path / "data"))
    for listing in data.glob("apparel/*/records-*.csv"):
        rows = list(csv.reader(listing.read_text().splitlines()))
        at = rows[0].index("digest")
        listing.write_text("".join(",".join(row[:at] + row[at + 1 :]) + "\n" for row in rows))
    assert open_split("apparel", "train", data).digests is None
    assert main(command(run, data, "--resume")) == 0
    assert main(["evaluate", str(run), "--data-dir", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("curves:")[1].split("\n", 1)[1])["notes"] == []


def test_copies_of_training_pictures_among_the_validation_pictures_are_reported(command, tmp_path, capsys):
    doubled = dict(list(PICTURES.items())[:60])
    doubled |= {f"blue_shirt/copy{at:02}.png": content for at, content in enumerate(list(doubled.values())[:40])}
    data = prepared(doubled, tmp_path)
    assert main(command(tmp_path / "run", data)) == 0
    train, val = (list(contents(data, split).values()) for split in ("train", "val"))
    copies = sum(content in train for content in val)
    line = f"{copies} of {len(val)} validation pictures are copies of training pictures"
    assert copies and line in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert line in err and json.loads(out)["pictures"] == len(val)


def test_evaluate_and_audit_keep_people_apart_as_the_run_did(command, tmp_path, capsys):
    names = [f"Images/{folder}/{at:02}.png" for folder in ("glasses", "no_glasses") for at in range(40)]
    files = {name: png(2000 + at) for at, name in enumerate(names)}
    people = "".join(f"{name},{at // 3}\n" for at, name in enumerate(files))
    data = prepared({**files, "attributes.csv": b"file,identity\n" + people.encode()}, tmp_path, "glasses")
    options = ["--sources", "glasses", "--tasks", "glasses", "--disjoint", "identity"]
    assert main(command(tmp_path / "run", data, *options)) == 0
    (trained_on,) = DataRecord.read(tmp_path / "run").training
    everything = open_split("glasses", "train", data)
    assert 0 < len(trained_on.pictures) < len(everything)
    capsys.readouterr()
    assert main(["audit", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["balance"]["train"]["pictures"] == len(trained_on.pictures)
    assert found["persons_across"][0] == 0 and found["notes"] == []
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert len(evaluated(tmp_path / "run" / "evaluation")) == len(open_split("glasses", "val", data))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([1, 2, 3, 3], None),
        ([1, 2, 3], "apparel val: .*not as often: 4 before, 3 now"),
        ([1, 1, 2, 3], "apparel val: .*not as often: 4 before, 4 now"),
        ([3, 1, 3, 2], "apparel val: .*another order"),
        ([1, 2, 3, 4], "apparel val: 0 of 4 .*missing, 1 .*new"),
    ],
)
def test_a_difference_is_called_what_it_is(now, expected):
    """A picture that is there twice, and then once, is no other order."""

    def part(digests):
        pictures = np.zeros(len(digests), [("digest", "<u8"), ("label_shirt", "<i2")])
        pictures["digest"] = digests
        return Part("apparel", "val", "", pictures)

    found = difference(part([1, 2, 3, 3]), part(now))
    assert found is None if expected is None else re.fullmatch(expected, found)
