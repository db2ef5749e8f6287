"""`prepare` and `open_split`, on made-up downloads and on what goes wrong."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from facefeat_jax.cli import main
from facefeat_jax.data import _child
from facefeat_jax.data import _drawn as drawn
from facefeat_jax.data import _parts as parts
from facefeat_jax.data import _sample_range as sample_range
from facefeat_jax.data import pixels as pixels_module
from facefeat_jax.data._prepared_rows import PreparedRows
from facefeat_jax.data._record_file import bytes_in, example
from facefeat_jax.data.builders import base, get_source
from facefeat_jax.data.dataset import default_data_dir, open_split
from facefeat_jax.data.examples import open_examples
from facefeat_jax.data.images import SINGLE_COLOUR, decode_resized
from facefeat_jax.data.pixels import DecodedRows, PixelFormat, are_packed, open_rows
from facefeat_jax.data.prepare import prepare
from facefeat_jax.system.errors import UserError

from ..made import encoded


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def nothing_half_written(data_dir: Path) -> bool:
    return not data_dir.exists() or all(path.name == ".lock" or path.is_dir() for path in data_dir.rglob("*"))


def fails_in_one_line(match: str, *args, **kwargs) -> str:
    with pytest.raises(UserError, match=match) as caught:
        prepare(*args, **kwargs, progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fairface_from_folder_zip_and_folder_of_zip_is_the_same(fairface_files, lay_out, pack, data_dir):
    labels = {name: content for name, content in fairface_files.items() if name.endswith(".csv")}
    images = {f"fairface-img-margin125-trainval/{n}": c for n, c in fairface_files.items() if n not in labels}
    pack(images, "shipped/fairface-img-margin125-trainval.zip")
    downloads = (lay_out(fairface_files), pack(fairface_files), lay_out(labels, "shipped"))
    fingerprints = set()
    for number, download in enumerate(downloads):
        summary = prepare("fairface", download, data_dir / str(number), progress=False)
        assert summary.kept == {"train": 12, "val": 6} == summary.selected
        split = open_split("fairface", "val", data_dir / str(number))
        fingerprints.add(split.fingerprint)
        assert split.classes == {"gender": ("female", "male")}
        assert split.source_files == [f"val/{n}.jpg" for n in range(1, 7)]
        assert split.labels["gender"].tolist() == [0, 1] * 3 and split.labels["gender"].dtype == np.int32
        assert set(split.groups["age"]) == {"3-9"}
        assert split.groups["race"].tolist() == ["Black", "Black", "White"] * 2
        assert [split.read(n) for n in range(6)] == [fairface_files[name] for name in split.source_files]
    assert len(fingerprints) == 1


def test_glasses_and_apparel(glasses_files, apparel_files, lay_out, data_dir):
    attributes = "file,gender,identity\nImages/glasses/000.jpg,Female,12\n"
    files = {**glasses_files, "attributes.csv": attributes.encode()}
    summary = prepare("glasses", lay_out(files, "glasses"), data_dir, progress=False)
    assert summary.kept == {"train": 12, "val": 3} and summary.left_out == {"folder not selected": 1}
    splits = [open_split("glasses", name, data_dir) for name in ("train", "val")]
    known = {
        file: (split.groups["gender"][row], split.groups["identity"][row])
        for split in splits
        for row, file in enumerate(split.source_files)
    }
    assert known.pop("glasses/000.jpg") == ("female", "12") and set(known.values()) == {("", "")}
    assert "gender" not in splits[0].labels

    summary = prepare("apparel", lay_out(apparel_files, "apparel"), data_dir, progress=False)
    assert summary.kept == {"train": 8, "val": 2} and summary.left_out == {"folder not selected": 2}
    split = open_split("apparel", "train", data_dir)
    names = [split.classes["shirt"][label] for label in split.labels["shirt"]]
    assert names == [file.split("_")[0] for file in split.source_files]


def test_several_in_one_call(glasses_files, apparel_files, lay_out, pack, tmp_path, data_dir, monkeypatch, capsys):
    monkeypatch.setattr(drawn, "TRAIN_SIZE", 8)
    monkeypatch.setattr(drawn, "VAL_SIZE", 4)
    downloads = lay_out(glasses_files, "downloads/glasses").parent
    pack(apparel_files, "downloads/apparel.zip")
    command = ["prepare", "--from", str(downloads), "--data-dir", str(data_dir), "--json"]
    # A name that is not there is told before the first is prepared.
    assert main([*command, "glasses", "fairface"]) == 2
    assert "neither fairface/ nor fairface.zip" in capsys.readouterr().err and not data_dir.exists()
    assert main([*command, "glasses", "avatars", "apparel"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["source"] for one in told] == ["glasses", "avatars", "apparel"]
    alone = prepare("apparel", downloads / "apparel.zip", tmp_path / "alone", progress=False)
    assert told[2]["classes"] == alone.classes
    # Of one that has to be downloaded, --from is its download.
    one = ["prepare", "avatars", "glasses", "--from", str(downloads / "glasses"), "--data-dir", str(data_dir)]
    assert main(one) == 0 and "glasses 1.0.0: already prepared" in capsys.readouterr().out


def test_avatars_are_the_same_however_many_draw_them(data_dir, monkeypatch):
    monkeypatch.setattr(drawn, "TRAIN_SIZE", 70)
    monkeypatch.setattr(drawn, "VAL_SIZE", 32)
    # More than one process: the children draw what they are told, so that the sizes needn't reach them.
    for workers in (1, 2):
        summary = prepare("avatars", None, data_dir / str(workers), workers=workers, progress=False)
        assert summary.kept == {"train": 70, "val": 32}
    one, two = (open_split("avatars", "val", data_dir / str(workers)) for workers in (1, 2))
    assert one.fingerprint == two.fingerprint and one.read(31) == two.read(31)
    assert set(one.labels) == {"gender", "glasses", "shirt"} and set(one.labels["shirt"]) == set(range(8))
    assert {"skin", "lighting", "pose"} <= set(one.groups)
    assert decode_resized(one.read(0), 32, "upright").shape == (32, 32, 3)
    monkeypatch.setattr(drawn, "VAL_SIZE", 33)
    assert prepare("avatars", None, data_dir / "1", workers=1, progress=False).kept["val"] == 33


def test_drawing_goes_on_where_a_child_dies(data_dir, monkeypatch):
    monkeypatch.setattr(drawn, "TRAIN_SIZE", 64)
    monkeypatch.setattr(drawn, "VAL_SIZE", 32)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert prepare("avatars", None, data_dir, workers=2, progress=False).kept == {"train": 64, "val": 32}


def test_tfds_reads_what_was_written(fairface_files, lay_out, data_dir):
    tfds = pytest.importorskip("tensorflow_datasets")
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    builder = tfds.builder_from_directory(str(summary.folder))
    assert builder.info.features["gender"].names == ["female", "male"]
    assert builder.info.redistribution_info.license == "CC BY 4.0" and "FairFace" in builder.info.citation
    records = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [record["source_row"] for record in records] == list(range(12))
    assert records[2]["groups"] == {"race": b"White", "age": b"3-9"}
    assert records[2]["image"] == fairface_files["train/3.jpg"]


def test_builders_work_through_tfds_alone(glasses_files, lay_out, data_dir, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    from facefeat_jax.data.builders.glasses import Glasses

    builder = Glasses(data_dir=data_dir)
    config = tfds.download.DownloadConfig(manual_dir=lay_out(glasses_files))
    builder.download_and_prepare(download_config=config)
    assert builder.info.splits["train"].num_examples == 12
    assert len(builder.as_data_source(split="val")) == 3
    with pytest.raises(UserError, match=r"not complete .*prepare it again"):
        open_split("glasses", "val", data_dir)
    assert capsys.readouterr().out == ""


def test_reading_needs_no_tfds(fairface_files, lay_out, data_dir, monkeypatch):
    prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert open_split("fairface", "val", data_dir).read(1) == fairface_files["val/2.jpg"]


def test_a_picture_is_found_in_a_record_whatever_the_order_of_its_features():
    """TFDS's own writer leaves it to chance; texts may hold anything, the name of the feature too."""
    values = {"image": bytes(range(256)) * 200, "source_file": "\n\x05image\x12\x01", "source_row": 7, "empty": b""}
    entries = [example({name: value})[2:] for name, value in values.items() if name != "image"]
    long = example({"image": values["image"]})[4:]  # whose length takes three bytes
    for order in itertools.permutations([long, *entries]):
        content = b"".join(order)
        size = bytes((len(content) & 127 | 128, len(content) >> 7 & 127 | 128, len(content) >> 14))
        record = b"\x0a" + size + content
        assert bytes_in(record, "image") == values["image"] and bytes_in(record, "empty") == b""
    for damaged in (b"", b"\x0a", b"x" * 40, example({"images": b"1"}), example({"image": 1})):
        with pytest.raises(ValueError, match="record"):
            bytes_in(damaged, "image")


def test_processes_that_were_started_early_end_with_the_work(fairface_files, lay_out, data_dir, monkeypatch):
    started = []
    monkeypatch.setattr(parts, "_ALONE", 1)
    monkeypatch.setattr(
        parts._child, "start", lambda module, start=_child.start: started.append(start(module)) or started[-1]
    )
    files = {**fairface_files, "fairface_label_val.csv": b"file,gender\n"}
    fails_in_one_line("race", "fairface", lay_out(files), data_dir, workers=2)
    assert len(started) == 2 and all(child.poll() is not None for child in started)


def test_many_shards_keep_the_order(fairface_files, lay_out, data_dir, monkeypatch):
    monkeypatch.setattr(base, "SHARD_SIZE", 5)
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    assert len(list(summary.folder.glob("*train.array_record*"))) == 3
    split = open_split("fairface", "train", data_dir)
    assert [split.read(n) for n in range(12)] == [fairface_files[f"train/{n + 1}.jpg"] for n in range(12)]


def test_every_bad_picture_is_named_once_with_its_reason(fairface_files, lay_out, picture, data_dir):
    bad = {
        "train/1.jpg": b"",
        "train/2.jpg": fairface_files["train/2.jpg"][:200],
        "train/3.jpg": b"<!DOCTYPE html><html>gone</html>",
        "train/4.jpg": b"\0" * 1000,
        "val/1.jpg": b"no picture at all",
    }
    files = {**fairface_files, **bad, "train/5.jpg": picture(5, "PNG"), "train/99.jpg": picture(9), "notes.txt": b"x"}
    del files["val/2.jpg"]
    summary = prepare("fairface", lay_out(files), data_dir, progress=False)
    assert summary.kept == {"train": 8, "val": 4} and summary.selected == {"train": 12, "val": 6}
    assert summary.left_out == {
        "picture does not decode": 5,
        "label without picture": 1,
        "picture without label": 1,
    }
    details = {line["file"]: (line["split"], line["reason"], line["detail"]) for line in lines(summary.left_out_csv)}
    assert {file: detail for file, (_, _, detail) in details.items()} == {
        "train/1.jpg": "empty file",
        "train/2.jpg": "cut short",
        "train/3.jpg": "not an image: looks like HTML",
        "train/4.jpg": "not an image: nothing but zero bytes",
        "train/99.jpg": "",
        "val/1.jpg": "not an image: looks like text",
        "val/2.jpg": "row 1",
    }
    kept = lines(summary.records_csv("train"))
    assert [line["source_file"] for line in kept] == [f"train/{n}.jpg" for n in range(5, 13)]
    assert [line["record"] for line in kept] == [str(n) for n in range(8)]
    assert kept[0]["note"] == "holds PNG" and kept[1]["note"] == ""
    assert "4 fewer than selected" in str(summary) and "hold another format" in str(summary)


def test_bad_pictures_don_t_move_the_split(glasses_files, lay_out, data_dir):
    prepare("glasses", lay_out(glasses_files, "whole"), data_dir / "whole", progress=False)
    victim = "Images/" + open_split("glasses", "train", data_dir / "whole").source_files[0]
    prepare("glasses", lay_out({**glasses_files, victim: b""}, "hurt"), data_dir / "hurt", progress=False)
    for split in ("train", "val"):
        whole = open_split("glasses", split, data_dir / "whole").source_files
        hurt = open_split("glasses", split, data_dir / "hurt").source_files
        assert hurt == [file for file in whole if f"Images/{file}" != victim]


def test_summary_and_its_file(fairface_files, lay_out, data_dir):
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    assert json.loads((summary.folder / "summary.json").read_text()) == json.loads(json.dumps(summary.to_json()))
    assert summary.classes["train"] == {"gender": {"female": 6, "male": 6}}
    text = str(summary)
    assert "fairface 1.0.0" in text and "12 pictures" in text and "female 6, male 6" in text
    assert "in file order" in text and str(summary.folder) in text


def test_prepared_once_is_prepared_until_overwritten(fairface_files, lay_out, data_dir):
    download = lay_out(fairface_files)
    first = prepare("fairface", download, data_dir, progress=False)
    before = open_split("fairface", "train", data_dir).fingerprint
    again = prepare("fairface", None, data_dir, progress=False)
    assert again.already_prepared and not first.already_prepared and again.kept == first.kept
    assert "already prepared" in str(again)
    (download / "train" / "12.jpg").write_bytes(b"")
    assert prepare("fairface", download, data_dir, overwrite=True, progress=False).kept["train"] == 11
    assert open_split("fairface", "train", data_dir).fingerprint != before
    assert sorted(path.name for path in (data_dir / "fairface").iterdir()) == [".lock", "1.0.0"]


def test_overwriting_that_fails_leaves_the_old_one(fairface_files, lay_out, data_dir):
    download = lay_out(fairface_files)
    prepare("fairface", download, data_dir, progress=False)
    shutil.rmtree(download / "val")
    fails_in_one_line("does not look like fairface", "fairface", download, data_dir, overwrite=True)
    assert len(open_split("fairface", "val", data_dir)) == 6


@pytest.mark.parametrize("source", ["fairface", "glasses", "apparel"])
@pytest.mark.parametrize("given", ["nothing", "missing", "empty", "other"])
def test_a_missing_download_is_one_message_with_what_where_terms_and_command(
    source, given, lay_out, tmp_path, data_dir
):
    path = {
        "nothing": None,
        "missing": tmp_path / "missing",
        "empty": lay_out({"a/readme.txt": b""}),
        "other": lay_out({"pictures/1.jpg": b"", "pictures/2.jpg": b""}),
    }[given]
    message = fails_in_one_line("Download", source, path, data_dir)
    for what, where in get_source(source).downloads:
        assert what in message and where in message
    assert f"terms: {get_source(source).terms}" in message and get_source(source).layout in message
    assert f"facefeat prepare {source} --from {path or 'DIR'}" in message
    assert nothing_half_written(data_dir)


def test_wrong_calls_are_one_line(lay_out, pack, fairface_files, tmp_path, data_dir):
    fails_in_one_line("unknown data set 'fairfaces'. Did you mean 'fairface'", "fairfaces", None, data_dir)
    fails_in_one_line("avatars is drawn", "avatars", tmp_path, data_dir)
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    fails_in_one_line("not a zip archive", "glasses", tmp_path / "a.zip", data_dir)
    table = fairface_files["fairface_label_train.csv"].replace(b"gender", b"sex")
    files = {**fairface_files, "fairface_label_train.csv": table}
    fails_in_one_line(r"fairface_label_train.csv: no column 'gender'", "fairface", lay_out(files), data_dir)
    with pytest.raises(UserError, match=r"unknown data set.*Known: apparel, avatars, fairface, glasses"):
        get_source("x")
    assert nothing_half_written(data_dir)


def test_a_split_without_any_good_picture_is_refused(fairface_files, lay_out, data_dir):
    files = {name: b"" if name.startswith("val/") else content for name, content in fairface_files.items()}
    message = "none of the 6 pictures .*val .*val/1.jpg: empty file"
    fails_in_one_line(message, "fairface", lay_out(files), data_dir)
    assert nothing_half_written(data_dir)


def test_however_many_processes_write_the_bytes_are_the_same(fairface_files, lay_out, pack, data_dir, monkeypatch):
    """Bad pictures among them: whole files of records without one, and others that are shorter for them."""
    monkeypatch.setattr(base, "SHARD_SIZE", 2)
    monkeypatch.setattr(parts, "_ALONE", 1)
    files = {**fairface_files, **dict.fromkeys(["train/3.jpg", "train/4.jpg", "train/9.jpg"], b"")}
    for number, (workers, download) in enumerate([(1, lay_out(files)), (3, lay_out(files)), (2, pack(files))]):
        prepare("fairface", download, data_dir / str(number), workers=workers, progress=False)
    one, *others = (
        {path.name: path.read_bytes() for path in (data_dir / str(number)).rglob("*") if path.is_file()}
        for number in range(3)
    )
    assert sum(name.startswith("fairface-train.array_record") for name in one) == 5
    for other in others:
        assert {name for name in one if one[name] != other.get(name)} == {"summary.json"} and one.keys() == other.keys()
    split = open_split("fairface", "train", data_dir / "1")
    assert [split.read(n) for n in range(9)] == [files[f"train/{n}.jpg"] for n in (1, 2, 5, 6, 7, 8, 10, 11, 12)]
    left = lines(data_dir / "1/fairface/1.0.0/left_out.csv")
    assert [(line["file"], line["detail"]) for line in left] == [(f"train/{n}.jpg", "empty file") for n in (3, 4, 9)]


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_for_training_are_written_from_the_same_decoding(
    workers, fairface_files, lay_out, tmp_path, data_dir, monkeypatch
):
    monkeypatch.setattr(base, "SHARD_SIZE", 2)
    monkeypatch.setattr(parts, "_ALONE", 1)
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    files = {**fairface_files, **dict.fromkeys(["train/3.jpg", "train/4.jpg", "train/9.jpg"], b"")}
    pixels = PixelFormat(24, "upright")
    prepare("fairface", lay_out(files), data_dir, workers=workers, progress=False, pixels=pixels)
    decoded = []
    decode = pixels_module.decode_resized
    monkeypatch.setattr(pixels_module, "decode_resized", lambda *a, **b: decoded.append(1) or decode(*a, **b))
    for split, count in (("train", 9), ("val", 6)):
        examples = open_examples(["fairface"], split, data_dir, {"gender": ("female", "male")})
        kept = open_rows(examples, pixels, "on").take(np.arange(count))
        assert not decoded
        np.testing.assert_array_equal(kept, DecodedRows(examples, pixels).take(np.arange(count)))
        decoded.clear()
    assert not list((tmp_path / "cache").rglob("*.partial"))


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_command_fills_the_cache_of_what_was_prepared_before_too(
    fairface_files, lay_out, tmp_path, data_dir, monkeypatch, capsys
):
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    command = ["prepare", "fairface", "--from", str(lay_out(fairface_files)), "--data-dir", str(data_dir)]
    assert main(command) == 0 and not (tmp_path / "cache").exists()
    assert main([*command, "--image-size", "0"]) == 2 and "--image-size 0 must be 1 to" in capsys.readouterr().err
    assert main([*command, "--decode", "as_notebook"]) == 2 and "is for --image-size" in capsys.readouterr().err
    assert main([*command, "--image-size", "16", "--decode", "as_notebook"]) == 0
    examples = open_examples(["fairface"], "val", data_dir, {"gender": ("female", "male")})
    assert are_packed(examples, PixelFormat(16, "as_notebook"))
    with monkeypatch.context() as patch:
        patch.setattr(PreparedRows, "keep", failing)
        assert main([*command, "--overwrite", "--image-size", "18"]) == 0
    assert "is prepared, but not the cache of its pictures" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**27 if "data" in str(path) else 0))
    assert main([*command, "--overwrite", "--image-size", "17"]) == 2
    assert "for decoded pictures" in capsys.readouterr().err and len(open_split("fairface", "val", data_dir)) == 6


def test_a_process_that_dies_is_one_line_with_the_place(fairface_files, lay_out, data_dir, monkeypatch):
    monkeypatch.setattr(base, "SHARD_SIZE", 2)
    monkeypatch.setattr(parts, "_ALONE", 1)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    message = r"process that checks pictures ended with exit code 1 .*train/\d+.jpg.*prepare again"
    fails_in_one_line(message, "fairface", lay_out(fairface_files), data_dir, workers=2)
    assert nothing_half_written(data_dir)


def test_no_room_is_said_before_anything_is_written(fairface_files, lay_out, data_dir, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    fails_in_one_line(r"needs 64 MiB, 0 MiB are free", "fairface", lay_out(fairface_files), data_dir)
    assert nothing_half_written(data_dir)


def test_a_disk_that_fills_up_is_one_line(fairface_files, lay_out, data_dir, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "records")

    monkeypatch.setattr(Path, "write_text", full)
    fails_in_one_line("No space left on device; nothing was written", "fairface", lay_out(fairface_files), data_dir)
    monkeypatch.undo()
    assert nothing_half_written(data_dir)
    assert prepare("fairface", lay_out(fairface_files), data_dir, progress=False).kept["train"] == 12


def test_a_data_dir_that_can_t_be_made_is_one_line(fairface_files, lay_out, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    message = fails_in_one_line("Not a directory", "fairface", lay_out(fairface_files), tmp_path / "file" / "data")
    assert str(tmp_path / "file") in message


def test_two_at_once_the_second_is_refused(fairface_files, lay_out, data_dir):
    import fcntl

    download = lay_out(fairface_files)
    (data_dir / "fairface").mkdir(parents=True)
    with open(data_dir / "fairface" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fails_in_one_line("another process is preparing", "fairface", download, data_dir)
    assert prepare("fairface", download, data_dir, progress=False).kept["train"] == 12


def test_killed_while_writing_leaves_nothing_that_opens_and_the_next_attempt_works(fairface_files, lay_out, data_dir):
    download = lay_out(fairface_files)
    code = f"""
        import time
        from pathlib import Path
        from facefeat_jax.data import prepare as module

        def stop(*args):
            print("writing", flush=True)
            time.sleep(60)

        module._write_left_out = stop
        module.prepare("fairface", Path({str(download)!r}), Path({str(data_dir)!r}), progress=False)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert (data_dir / "fairface" / ".preparing").exists()
    with pytest.raises(UserError, match="is not prepared"):
        open_split("fairface", "train", data_dir)
    assert prepare("fairface", download, data_dir, progress=False).kept["train"] == 12
    assert not (data_dir / "fairface" / ".preparing").exists()


def test_killed_between_the_two_renames_of_an_overwrite(fairface_files, lay_out, data_dir):
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    summary.folder.rename(summary.folder.parent / ".replaced")
    assert prepare("fairface", lay_out(fairface_files), data_dir, progress=False).already_prepared
    assert len(open_split("fairface", "train", data_dir)) == 12


def test_ctrl_c_while_checking_ends_soon_and_leaves_nothing(fairface_files, lay_out, data_dir, monkeypatch):
    from facefeat_jax.data import _listing as listing

    def interrupted(data, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "check", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    assert time.monotonic() - started < 10 and nothing_half_written(data_dir)


def test_not_prepared_names_the_command(data_dir):
    with pytest.raises(UserError, match=r"run: facefeat prepare apparel --from DIR$"):
        open_split("apparel", "train", data_dir)
    with pytest.raises(UserError, match=r"run: facefeat prepare avatars$"):
        open_split("avatars", "train", data_dir)
    with pytest.raises(UserError, match="Did you mean 'train'"):
        open_split("avatars", "trian", data_dir)  # type: ignore[arg-type]


def test_another_version_has_to_be_prepared_again(fairface_files, lay_out, data_dir):
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    summary.folder.rename(summary.folder.parent / "0.9.0")
    with pytest.raises(UserError, match=r"version 0\.9\.0, .* 1\.0\.0; prepare it again"):
        open_split("fairface", "train", data_dir)


@pytest.mark.parametrize(
    "gone",
    ["records-train.csv", "summary.json", "gender.labels.txt", "dataset_info.json", "fairface-train.array_record*"],
)
def test_a_file_that_is_gone_is_noticed_and_prepare_mends_it(gone, fairface_files, lay_out, data_dir):
    download = lay_out(fairface_files)
    summary = prepare("fairface", download, data_dir, progress=False)
    next(summary.folder.glob(gone)).unlink()
    with pytest.raises(UserError, match=r"not complete.*prepare fairface --from DIR --overwrite"):
        open_split("fairface", "train", data_dir)
    prepare("fairface", download, data_dir, overwrite=True, progress=False)
    assert len(open_split("fairface", "train", data_dir)) == 12


def test_a_listing_that_was_cut_is_noticed(fairface_files, lay_out, data_dir):
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    listing = summary.records_csv("train")
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(UserError, match="10 lines, 12 were written"):
        open_split("fairface", "train", data_dir)


def test_damaged_records_are_one_line(fairface_files, lay_out, data_dir):
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    records = next(summary.folder.glob("*train.array_record*"))
    records.write_bytes(b"\x55" * records.stat().st_size)
    split = open_split("fairface", "train", data_dir)
    with pytest.raises(UserError, match=r"record 3 of train .*prepare it again") as caught:
        split.read(3)
    assert "\n" not in str(caught.value)
    with pytest.raises(IndexError):
        split.read(12)
    with pytest.raises(IndexError):
        split.read(-1)


def test_threads_and_processes_read_the_same(fairface_files, lay_out, data_dir):
    import pickle

    prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    split = open_split("fairface", "train", data_dir)
    expected = [fairface_files[file] for file in split.source_files]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(split.read, list(range(12)) * 20)) == expected * 20
    copy = pickle.loads(pickle.dumps(split))
    assert [copy.read(n) for n in range(12)] == expected


def test_a_data_dir_that_is_only_read_works(fairface_files, lay_out, data_dir):
    summary = prepare("fairface", lay_out(fairface_files), data_dir, progress=False)
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    split = open_split("fairface", "train", data_dir)
    assert split.read(0) and prepare("fairface", None, data_dir, progress=False).already_prepared
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == before
    assert summary.folder.is_dir()


def test_no_tensorflow_and_no_torch_is_loaded(fairface_files, lay_out, data_dir):
    code = f"""
        import sys
        from pathlib import Path
        from facefeat_jax.data.dataset import open_split
        assert "tensorflow_datasets" not in sys.modules
        from facefeat_jax.data.prepare import prepare
        prepare("fairface", Path({str(lay_out(fairface_files))!r}), Path({str(data_dir)!r}))
        open_split("fairface", "val", Path({str(data_dir)!r})).read(0)
        print(sorted({{"tensorflow", "torch"}} & sys.modules.keys()))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_default_data_dir(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    assert default_data_dir() == Path("/somewhere")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert default_data_dir() == Path("~/tensorflow_datasets").expanduser()


@pytest.mark.realdata
def test_the_real_apparel_pictures(realdata, data_dir):
    summary = prepare("apparel", realdata / "apparel", data_dir, progress=False)
    assert summary.kept == {"train": 1664, "val": 417}
    assert summary.left_out == {"folder not selected": 24, "suffix not selected": 14}
    suffixes = [Path(line["file"]).suffix for line in lines(summary.left_out_csv)]
    assert sorted(suffixes) == [".avif"] * 9 + [".webp"] * 5


def test_the_command_counts_and_names_the_kept_pictures_that_it_notes(fairface_files, lay_out, data_dir, capsys):
    ramp = np.linspace(0, 4095, 64)[None].repeat(48, 0).astype(np.uint16)
    dark, blank = encoded(ramp, "TIFF"), encoded(Image.new("RGB", (32, 24), "red"), "JPEG")
    floats = encoded(ramp.astype(np.float32), "TIFF", tiffinfo={340: 0.0, 341: 4095.0})
    odd = {"train/2.jpg": dark, "train/3.jpg": blank, "val/1.jpg": blank, "train/4.jpg": floats}
    download = lay_out({**fairface_files, **odd})
    assert main(["prepare", "fairface", "--from", str(download), "--data-dir", str(data_dir)]) == 0
    out = capsys.readouterr().out
    for what in (
        f"note: 2 kept pictures: {SINGLE_COLOUR} (train/3.jpg, val/1.jpg; see the listings)",
        f"note: 1 kept picture: {sample_range.DARK} (train/2.jpg; see the listings)",
        f"note: 1 kept picture: {sample_range.FLOATS} (train/4.jpg; see the listings)",
    ):
        assert what in out, out
    (listing,) = data_dir.glob("fairface/*/records-train*.csv")
    notes = {row["source_file"]: row["note"] for row in lines(listing)}
    assert sample_range.DARK in notes["train/2.jpg"] and SINGLE_COLOUR in notes["train/3.jpg"]
    assert notes["train/1.jpg"] == ""
