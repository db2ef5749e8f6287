"""Downloads in which a set could lie in several places: all of it is taken, or one, and that is reported, or none."""

from __future__ import annotations

import csv
import json

import pytest

from facefeat_jax.cli import main
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.prepare import prepare
from facefeat_jax.data.summary import PrepareSummary
from facefeat_jax.system.errors import UserError


@pytest.fixture
def prepared(tmp_path):
    """Returns a function that prepares a download."""

    def run(source, download, **options) -> PrepareSummary:
        return prepare(source, download, tmp_path / "data", progress=False, **options)

    return run


@pytest.fixture
def files(tmp_path):
    """Returns a function that returns the names of all records of a data set."""

    def names(source) -> set[str]:
        return {
            name for split in ("train", "val") for name in open_split(source, split, tmp_path / "data").source_files
        }

    return names


def glasses(picture, folder: str, first: int, count: int = 5) -> dict[str, bytes]:
    return {
        f"{folder}{name}/{number}.jpg": picture(first + number + 100 * len(name))
        for name in ("glasses", "no_glasses")
        for number in range(count)
    }


@pytest.mark.parametrize("halves", [("test", "train"), ("Train", "Valid", "Test")])
@pytest.mark.parametrize("above", ["", "archive/Images/"])
def test_halves_are_taken_together(halves, above, prepared, files, lay_out, picture):
    parts = [glasses(picture, f"{above}{half}/", 1000 * at) for at, half in enumerate(halves)]
    download = lay_out({name: content for part in parts for name, content in part.items()})
    summary = prepared("glasses", download)
    assert sum(summary.kept.values()) == 10 * len(halves) and not summary.left_out
    assert files("glasses") == {name.removeprefix(above) for part in parts for name in part}
    (note,) = [note for note in summary.notes if "read together" in note]
    assert all(f"{half}/" in note for half in halves)


def test_apparel_in_train_and_val(prepared, lay_out, apparel_files, picture):
    more = {f"val/{name}": picture(500 + at) for at, name in enumerate(apparel_files)}
    summary = prepared("apparel", lay_out({**{f"train/{n}": c for n, c in apparel_files.items()}, **more}))
    assert sum(summary.kept.values()) == 20 and summary.left_out == {"folder not selected": 4}


@pytest.mark.parametrize("copy", ["people with glasses/Images/", "train/", "Images (1)/"])
def test_the_same_files_once_more_are_taken_once(copy, prepared, files, lay_out, picture):
    once = glasses(picture, "", 0)
    again = {f"{copy}{name}": content for name, content in once.items()}
    summary = prepared("glasses", lay_out({**{f"Images/{n}": c for n, c in once.items()}, **again}))
    assert sum(summary.kept.values()) == 10
    assert len(files("glasses")) == 10
    assert any("is not read again" in note or "used once" in note for note in summary.notes)


def test_what_halves_have_in_common_is_taken_once(prepared, lay_out, picture, tmp_path):
    both = glasses(picture, "train/", 0) | glasses(picture, "test/", 3)
    summary = prepared("glasses", lay_out(both))
    assert sum(summary.kept.values()) == 16
    assert summary.left_out == {"same file as one that is taken": 4}
    listed = list(csv.DictReader(summary.left_out_csv.read_text().splitlines()))
    assert {line["file"].split("/")[0] for line in listed} == {"train"}
    assert {line["detail"].split("/")[0] for line in listed} == {"test"}


def test_of_different_sets_none_is_chosen(prepared, lay_out, picture):
    download = lay_out(glasses(picture, "part1/", 0) | glasses(picture, "part2/", 1000))
    with pytest.raises(UserError, match=r"several sets .*part1/ \(10 .*part2/ \(10 .*; name"):
        prepared("glasses", download)
    deeper = lay_out(glasses(picture, "", 0, 3) | glasses(picture, "more/Images/", 1000), "deeper")
    with pytest.raises(UserError, match=r"several sets .*the top folder"):
        prepared("glasses", deeper)
    fewer = lay_out(glasses(picture, "", 0) | glasses(picture, "more/samples/", 1000, 2), "fewer")
    notes = prepared("glasses", fewer).notes
    assert "4 pictures in more/samples/ are not used" in notes[0]


def test_stray_folders_hide_no_set(prepared, lay_out, picture, apparel_files):
    stray = {f"my_shirts/{at}.jpg": picture(800 + at) for at in range(3)}
    shop = {f"data/{name}": content for name, content in apparel_files.items()}
    assert sum(prepared("apparel", lay_out({**stray, **shop}, "shop")).kept.values()) == 10
    stray = {f"glasses/{at}.jpg": picture(900 + at) for at in range(3)}
    summary = prepared("glasses", lay_out(stray | glasses(picture, "Images/", 0)))
    assert sum(summary.kept.values()) == 10
    assert any("3 pictures in the top folder are not used" in note for note in summary.notes)


def test_folders_in_another_spelling(prepared, files, lay_out, picture, tmp_path):
    download = lay_out({name.replace("no_glasses", "No Glasses"): c for name, c in glasses(picture, "", 0).items()})
    summary = prepared("glasses", download)
    assert summary.classes["train"]["glasses"] == {"no_glasses": 4, "glasses": 4}
    assert "taken for no_glasses: No Glasses" in summary.notes


def test_suffixes_of_the_other_case_are_named(prepared, lay_out, picture):
    download = lay_out({name.replace(".jpg", ".JPG"): content for name, content in glasses(picture, "", 0).items()})
    with pytest.raises(UserError, match=r"no two .jpg or .png files in a folder glasses/; suffixes .*: 10 \.JPG"):
        prepared("glasses", download)


@pytest.mark.parametrize("margin", ["fairface-img-margin125-trainval", "Padding 1.25"])
def test_fairface_with_both_margins(margin, prepared, lay_out, pack, picture, fairface_files, tmp_path):
    labels = {name: content for name, content in fairface_files.items() if name.endswith(".csv")}
    pictures = {name: content for name, content in fairface_files.items() if name not in labels}
    others = {name: picture(5000 + at) for at, name in enumerate(pictures)}
    lay_out(labels, "shipped")
    pack(others, "shipped/fairface-img-margin025-trainval.zip")
    pack(pictures, f"shipped/{margin}.zip")
    if "125" not in margin:
        with pytest.raises(UserError, match=r"several places: Padding 1.25/ and fairface-img-margin025-trainval/"):
            prepared("fairface", tmp_path / "shipped")
        return
    summary = prepared("fairface", tmp_path / "shipped")
    assert any(f"are read from {margin}/" in note for note in summary.notes)
    split = open_split("fairface", "train", tmp_path / "data")
    assert split.read(0) == pictures["train/1.jpg"] and len(split) == 12


def test_an_archive_that_was_downloaded_twice(prepared, lay_out, pack, picture, tmp_path):
    for name in ("archive.zip", "archive (1).zip"):
        pack(glasses(picture, "Images/", 0), f"shipped/{name}")
    assert sum(prepared("glasses", tmp_path / "shipped").kept.values()) == 10


def test_an_archive_beside_other_pictures_is_named(prepared, lay_out, pack, picture, tmp_path):
    lay_out({"preview.jpg": picture(1)}, "shipped")
    pack(glasses(picture, "Images/", 0), "shipped/archive.zip")
    with pytest.raises(UserError, match=r"archive.zip in it is not read, .*pictures beside it"):
        prepared("glasses", tmp_path / "shipped")


def test_different_label_files_of_one_name(prepared, lay_out, fairface_files):
    moved = {name: content for name, content in fairface_files.items() if not name.endswith(".csv")}
    for at, folder in enumerate(("a", "b")):
        for split in ("train", "val"):
            moved[f"{folder}/fairface_label_{split}.csv"] = fairface_files[f"fairface_label_{split}.csv"] + b"\n" * at
    with pytest.raises(UserError, match=r"a/fairface_label_train.csv and b/fairface_label_train.csv"):
        prepared("fairface", lay_out(moved))


def test_races_in_several_spellings_are_one_and_nan_is_none(prepared, lay_out, fairface_files, tmp_path):
    table = fairface_files["fairface_label_train.csv"].replace(b"White", b"black", 2).replace(b"White", b"nan", 1)
    summary = prepared("fairface", lay_out({**fairface_files, "fairface_label_train.csv": table}))
    assert summary.left_out == {"label row not usable": 1}
    assert set(open_split("fairface", "train", tmp_path / "data").groups["race"]) == {"Black", "White"}


def test_a_download_is_not_ignored_where_another_is_prepared(lay_out, glasses_files, tmp_path, capsys):
    one, other = lay_out(glasses_files, "one"), lay_out(glasses_files, "other")
    command = ["prepare", "glasses", "--data-dir", str(tmp_path / "data"), "--from"]
    assert main([*command, str(one)]) == 0
    (listing,) = (tmp_path / "data").glob("glasses/*/records-train.csv")
    before = listing.stat().st_mtime_ns
    capsys.readouterr()
    assert main([*command, str(other)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{listing.parent}, from {one}; --overwrite" in line and f"from {other}" in line
    assert main([*command, str(one / ".." / "one")]) == 0
    assert f"from {one}, nothing to do" in capsys.readouterr().out
    assert listing.stat().st_mtime_ns == before
    assert main([*command, str(other), "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prepared_from"] == str(other)


def test_of_a_folder_and_a_zip_of_one_name_that_is_reported(lay_out, pack, glasses_files, apparel_files, capsys):
    downloads = lay_out(glasses_files, "downloads/glasses").parent
    lay_out(apparel_files, "downloads/apparel")
    pack(glasses_files, "downloads/glasses.zip")
    command = ["prepare", "glasses", "apparel", "--data-dir", str(downloads / "data"), "--from", str(downloads)]
    assert main(command) == 0
    assert f"reading {downloads / 'glasses'}, not glasses.zip beside it" in capsys.readouterr().err
