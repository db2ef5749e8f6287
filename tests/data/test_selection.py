"""Selection and splits against what pandas and scikit-learn gave for the notebook's calls.

The hashes were computed once with pandas 3.1.1 and scikit-learn 1.9.1; `test_pandas_agrees` computes them live where
pandas is installed.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter

import pytest

from facefeat_jax.data import selection
from facefeat_jax.data.builders import apparel, fairface, glasses
from facefeat_jax.data.selection import LayoutError
from facefeat_jax.system.tables import TableRow, read_table

GLASSES = [f"glasses/{i * 37 % 1000:03}.{'png' if i % 7 == 0 else 'jpg'}" for i in range(61)] + [
    f"no_glasses/{i * 53 % 1000:03}.jpg" for i in range(44)
]
APPAREL = [
    f"{folder}/{i * 29 % 500:03}.{suffix}"
    for folder, count, suffix in (
        ("black_dress", 13, "jpg"),
        ("blue_shirt", 21, "JPG"),
        ("red_hoodie", 9, "jpeg"),
        ("white_suit", 17, "png"),
        ("yellow_shirt", 30, "jpg"),
    )
    for i in range(count)
]
FAIRFACE = [
    {"file": f"train/{i + 1}.jpg", "race": ("A", "B", "C, D")[i * 7 % 3], "gender": ("Male", "Female")[i * i % 5 % 2]}
    for i in range(60)
]
GLASSES_HASHES = ("a0361ada46d7f43a", "d4aa4406da392956")
APPAREL_HASHES = ("3b5e697c911b5943", "eebbda8580218b99")
FAIRFACE_HASH = "2fe42c121b2ee8e5"


def hashed(names) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def hashes(chosen: selection.Selection) -> tuple[str, ...]:
    return tuple(hashed(row.source_file for row in rows) for rows in chosen.rows.values())


def reasons(chosen: selection.Selection) -> Counter:
    return Counter(one.reason for one in chosen.left_out)


def table(rows) -> list[TableRow]:
    return [TableRow(number, {"age": "", **row}) for number, row in enumerate(rows)]


def faces(split: str, *rows: tuple[str, str, str]) -> list[TableRow]:
    return table({"file": f"{split}/{file}", "gender": gender, "race": race} for file, gender, race in rows)


def test_glasses_is_shuffled_and_split_as_by_pandas_and_sklearn():
    chosen = glasses.select(GLASSES)
    assert hashes(chosen) == GLASSES_HASHES
    assert [len(rows) for rows in chosen.rows.values()] == [84, 21]
    assert Counter(row.labels["glasses"] for row in chosen.rows["val"]) == {"glasses": 12, "no_glasses": 9}
    row = chosen.rows["val"][0]
    assert row.source_file == "glasses/296.jpg" and sorted(GLASSES)[row.source_row] == row.source_file


def test_apparel_is_split_as_by_sklearn():
    chosen = apparel.select(APPAREL)
    assert hashes(chosen) == APPAREL_HASHES
    assert [len(rows) for rows in chosen.rows.values()] == [72, 18]
    assert chosen.rows["val"][0].labels == {"shirt": "red"} and chosen.rows["val"][0].groups == {"garment": "hoodie"}


def test_the_listings_order_and_a_wrapping_folder_change_nothing():
    for select, names, expected in (
        (glasses.select, GLASSES, GLASSES_HASHES),
        (apparel.select, APPAREL, APPAREL_HASHES),
    ):
        assert hashes(select(names[::-1])) == expected
        wrapped = select([f"wrapper/Images/{name}" for name in names])
        assert hashes(wrapped) == expected and wrapped.root == "wrapper/Images/"


def test_glasses_suffixes_are_case_sensitive():
    extra = ["glasses/a.JPG", "glasses/b.jpeg", "glasses/c.webp", "no_glasses/d.PNG", "glasses/e.avif"]
    chosen = glasses.select(GLASSES + extra)
    assert hashes(chosen) == GLASSES_HASHES
    assert reasons(chosen) == {selection.WRONG_SUFFIX: 5}


def test_apparel_suffixes_are_not_and_avif_and_webp_are_left_out():
    extra = ["red_shirt/a.avif", "red_shirt/b.webp", "red_shirt/c.gif"]
    assert reasons(apparel.select(APPAREL + extra)) == {selection.WRONG_SUFFIX: 3}
    assert hashes(apparel.select(APPAREL + extra)) == APPAREL_HASHES
    more = apparel.select([*APPAREL, "red_shirt/a.JPEG", "red_shirt/b.PnG"])
    assert sum(map(len, more.rows.values())) == len(APPAREL) + 2


def test_apparel_leaves_other_garments_deeper_files_and_unknown_colours_out():
    extra = ["black_pants/1.jpg", "blue_shoes/2.jpg", "red_shirt/deeper/3.jpg", "readme.txt", "silver_shirt/4.jpg"]
    chosen = apparel.select(APPAREL + extra)
    assert hashes(chosen) == APPAREL_HASHES
    assert reasons(chosen) == {selection.OTHER_FOLDER: 4, selection.UNKNOWN_CLASS: 1}
    assert next(one for one in chosen.left_out if one.reason == selection.UNKNOWN_CLASS).detail == "colour 'silver'"


def test_a_second_copy_further_down_does_not_count():
    copies = [f"people/Images/{name}" for name in GLASSES]
    chosen = glasses.select([*(f"Images/{name}" for name in GLASSES), *copies])
    assert hashes(chosen) == GLASSES_HASHES and reasons(chosen) == {selection.OTHER_FOLDER: len(copies)}


def test_glasses_attributes_are_groups_and_blank_where_unknown():
    known = {"glasses/296.jpg": {"gender": "Male", "identity": "7"}, "glasses/220.jpg": {"gender": "", "identity": "8"}}
    first, second, third = glasses.select(GLASSES, known).rows["val"][:3]
    assert first.groups == {"gender": "male", "identity": "7"} and first.labels == {"glasses": "glasses"}
    assert second.groups == {"gender": "", "identity": "8"}
    assert third.groups == {"gender": "", "identity": ""}


@pytest.mark.parametrize(
    ("select", "names", "message"),
    [
        (glasses.select, [], "no two .jpg or .png files in a folder glasses/"),
        (glasses.select, ["glasses/1.jpg", "glasses/2.jpg"], "folder no_glasses/"),
        (glasses.select, [f"{f}/{i}.jpg" for f in ("glasses", "no_glasses") for i in range(2)], "too few"),
        (apparel.select, ["pants/1.jpg"], "no two pictures"),
    ],
)
def test_other_listings_are_refused(select, names, message):
    with pytest.raises(LayoutError, match=message):
        select(names)


def test_fairface_takes_the_first_rows_of_each_group_in_file_order(monkeypatch):
    monkeypatch.setitem(fairface.QUOTA, "train", 4)
    chosen = fairface.select({"train": table(FAIRFACE), "val": faces("val", ("1.jpg", "Male", "A"))})
    assert hashed(row.source_file for row in chosen.rows["train"]) == FAIRFACE_HASH
    assert reasons(chosen) == {selection.BEYOND_QUOTA: 36}
    assert [row.source_row for row in chosen.rows["train"]] == sorted(row.source_row for row in chosen.rows["train"])


def test_a_group_smaller_than_the_quota_is_taken_whole():
    val = [(f"{i}.jpg", "Female", "Middle Eastern" if i < 396 else "White") for i in range(1200)]
    chosen = fairface.select({"train": faces("train", ("1.jpg", "Male", "A")), "val": faces("val", *val)})
    assert Counter(row.groups["race"] for row in chosen.rows["val"]) == {"Middle Eastern": 396, "White": 600}


def test_fairface_accounts_for_every_odd_row():
    train = [
        *faces(
            "train",
            ("1.jpg", "Male", "A"),
            ("2.jpg", "Other", "A"),
            ("1.jpg", "Female", "A"),
            ("3.jpg", "female", "A"),
            ("4.jpg", "Male", ""),
            ("../../etc/passwd", "Male", "A"),
        ),
        TableRow(6, {}, "1 fields instead of 5"),
    ]
    val = faces("val", ("1.jpg", "Male", "A")) + faces("train", ("3.jpg", "Male", "A"))
    chosen = fairface.select({"train": train, "val": val})
    assert [(row.source_file, row.labels["gender"], row.source_row) for row in chosen.rows["train"]] == [
        ("train/1.jpg", "male", 0),
        ("train/3.jpg", "female", 3),
    ]
    assert [row.source_file for row in chosen.rows["val"]] == ["val/1.jpg"]
    assert reasons(chosen) == {selection.UNKNOWN_CLASS: 1, selection.TWICE: 2, selection.BAD_ROW: 3}
    details = {one.detail for one in chosen.left_out}
    assert "row 1: gender 'Other'" in details and "row 6: 1 fields instead of 5" in details


def test_labels_without_picture_and_pictures_without_label_are_left_out():
    labels = {
        "train": faces("train", ("1.jpg", "Male", "A"), ("2.jpg", "Male", "A")),
        "val": faces("val", ("1.jpg", "Female", "A")),
    }
    names = ["margin125/train/1.jpg", "margin125/train/9.jpg", "margin125/val/1.jpg", "fairface_label_train.csv"]
    chosen = fairface.select(labels, names)
    assert chosen.root == "margin125/"
    assert [row.source_file for row in chosen.rows["train"]] == ["train/1.jpg"]
    assert [(one.file, one.split, one.reason) for one in chosen.left_out] == [
        ("train/2.jpg", "train", selection.NO_PICTURE),
        ("margin125/train/9.jpg", "", selection.NO_LABEL),
    ]
    with pytest.raises(LayoutError, match=r"none of the 2 pictures of train .*train/1.jpg"):
        fairface.select(labels, ["val/1.jpg"])


def test_tables_without_a_usable_row_are_refused():
    rows = {"train": faces("train", ("1.jpg", "m", "A")), "val": faces("val", ("1.jpg", "f", "A"))}
    with pytest.raises(LayoutError, match="no usable row"):
        fairface.select(rows, ["train/1.jpg", "val/1.jpg"])


@pytest.mark.realdata
def test_the_real_label_files_give_the_baselines_counts(realdata):
    labels = {
        split: read_table((realdata / "fairface_labels" / f"fairface_label_{split}.csv").read_bytes(), split, ["file"])
        for split in ("train", "val")
    }
    chosen = fairface.select(labels)
    assert [len(rows) for rows in chosen.rows.values()] == [33_600, 8_196]
    # Of the names that pandas' groupby(["race", "gender"]).head(n) gives.
    assert hashes(chosen) == ("82ca0ac001ed4325", "6ff79b22059c0f0e")
    groups = Counter((row.groups["race"], row.labels["gender"]) for row in chosen.rows["val"])
    assert groups.pop(("Middle Eastern", "female")) == 396 and set(groups.values()) == {600}
    ages = {row.groups["age"] for rows in chosen.rows.values() for row in rows}
    assert {"3-9", "10-19", "more than 70"} <= ages and len(ages) == 9
    assert sum(reasons(chosen).values()) + 33_600 + 8_196 == 86_744 + 10_954


@pytest.mark.compare
def test_pandas_agrees():
    pandas = pytest.importorskip("pandas")
    from sklearn.model_selection import train_test_split

    names = sorted(GLASSES)
    frame = pandas.DataFrame({"file": names, "label": [int(name.startswith("glasses/")) for name in names]})
    frame = frame.sample(frac=1, random_state=42).reset_index(drop=True)
    halves = train_test_split(frame, test_size=0.2, stratify=frame.label, random_state=42)
    assert tuple(hashed(half.file) for half in halves) == GLASSES_HASHES
    halves = train_test_split(sorted(APPAREL), test_size=0.2, random_state=42)
    assert tuple(map(hashed, halves)) == APPAREL_HASHES
    assert hashed(pandas.DataFrame(FAIRFACE).groupby(["race", "gender"]).head(4).file) == FAIRFACE_HASH


def test_names_of_a_table_are_those_of_the_listing_however_they_are_spelled():
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    labels = {
        "train": faces("train", (composed, "Male", "A"), ("./1.jpg", "Male", "A"), (decomposed, "Female", "A")),
        "val": [TableRow(0, {"file": "val\\2.jpg", "gender": "Male", "race": "A"})],
    }
    names = [f"set/train/{decomposed}", "set/train/1.jpg", "set/val/2.jpg"]
    chosen = fairface.select(labels, names)
    assert [row.source_file for row in chosen.rows["train"]] == [f"train/{decomposed}", "train/1.jpg"]
    assert [row.source_file for row in chosen.rows["val"]] == ["val/2.jpg"]
    assert reasons(chosen) == {selection.TWICE: 1}


def test_attributes_of_no_picture_are_reported():
    names = [f"Images/{kind}/{number}.jpg" for kind in ("glasses", "no_glasses") for number in range(6)]
    known = {"glasses/1.jpg": {"gender": "Male"}, "glasses/typo.jpg": {"gender": "Male"}}
    notes = glasses.select(names, known).notes
    assert any(note.startswith("1 of the 2 rows ") and note.endswith(" glasses/typo.jpg") for note in notes)
