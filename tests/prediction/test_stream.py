"""Answers into a file: order, going on after any cut, and what is refused."""

from __future__ import annotations

import csv
import fcntl
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.data._sample_range import CLIPPED, DARK, FLOATS
from facefeat_jax.data.images import SINGLE_COLOUR
from facefeat_jax.prediction import _output
from facefeat_jax.prediction import stream as stream_module
from facefeat_jax.prediction._output import name_from_json
from facefeat_jax.prediction.answers import HeadPrediction, Prediction
from facefeat_jax.prediction.crops import Box, Person
from facefeat_jax.prediction.stream import Written, write_answers
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.tables import from_csv

TASKS = ("glasses", "shirt")
NAMES = ["a.png", 'quo"te, comma.png', "line\nbreak.png", "a.png", "caf\udce9.png", "bad.png", "é.png", "\r.png"]


def answer(name: str) -> Prediction:
    if name == "bad.png":
        return Prediction(name, {}, "empty file")
    probability = len(name) / 100
    head = HeadPrediction("yes", probability, {"yes": probability, "no": 1 - probability})
    return Prediction(name, dict.fromkeys(TASKS, head))


def stream(names: Iterable[str]) -> Iterator[Prediction]:
    return map(answer, names)


def write(out: Path, names: Iterable[str] = NAMES, **options) -> Written:
    return write_answers(stream, names, out, **{"tasks": TASKS, "about": {"model": "m"}, **options})


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_answer_for_every_picture_in_order(suffix, tmp_path):
    out = tmp_path / f"answers{suffix}"
    assert write(out) == Written(8, 0, 1)
    text = out.read_bytes().decode("utf-8", "surrogateescape")
    if suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        names = [from_csv(row["file"]) for row in rows]
        assert [row["error"] for row in rows] == ["empty file" if name == "bad.png" else "" for name in NAMES]
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        assert rows[0]["heads"]["shirt"]["probabilities"] == {"yes": 0.05, "no": 0.95}
        # Other programs refuse what Python has for bytes that are not UTF-8.
        assert (rows[4]["file"], rows[4]["file_bytes"]) == ("caf\ufffd.png", b"caf\xe9.png".hex())
        names = [name_from_json(row) for row in rows]
    assert names == NAMES
    assert sorted(os.listdir(tmp_path)) == [f"answers{suffix}", f"answers{suffix}.about.json"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_cut_at_any_byte_it_goes_on_to_the_same_file(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    out = tmp_path / f"answers{suffix}"
    write(out)
    whole = out.read_bytes()
    before = set()
    for length in range(len(whole) + 1):
        out.write_bytes(whole[:length])
        asked: list[str] = []

        def watched(names: Iterable[str], asked: list[str] = asked) -> Iterator[Prediction]:
            return (asked.append(name) or answer(name) for name in names)

        done = write_answers(watched, NAMES, out, tasks=TASKS, about={"model": "m"}, resume=True)
        assert out.read_bytes() == whole, length
        assert (done.pictures, done.bad) == (8, 1) and asked == NAMES[done.before :]
        before.add(done.before)
    assert before == set(range(9))


def test_a_resumed_run_begins_with_a_whole_batch(tmp_path):
    """What an answer's last digits are depends on the batch it was in; here all of them are the batch."""

    def in_batches(names: Iterable[str]) -> Iterator[Prediction]:
        given = iter(names)
        while batch := list(itertools.islice(given, 3)):
            for name in batch:
                yield Prediction(name, {}, " and ".join(map(ascii, batch)))

    for form in ("jsonl", "csv"):
        out = tmp_path / f"answers.{form}"
        options = {"tasks": TASKS, "about": {}, "group": 3}
        assert write_answers(in_batches, NAMES, out, **options) == Written(8, 0, 8)
        whole = out.read_bytes()
        ends = [number + 1 for number, byte in enumerate(whole) if byte == ord("\n")]
        for end in ends:
            out.write_bytes(whole[:end])
            done = write_answers(in_batches, NAMES, out, resume=True, **options)
            assert out.read_bytes() == whole and (done.before % 3 == 0 or done.before == 8) and done.bad == 8
        assert write_answers(in_batches, NAMES, out, resume=True, **options) == Written(8, 8, 8)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_with_several_answers_a_picture_it_goes_on_to_the_same_file(suffix, tmp_path, monkeypatch):
    """Cut anywhere: a person's answer may be the last of its picture, and the next picture the same file again."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    names, people = ["a.png", "b.png", "b.png", "bad.png", "c.png"], {"a.png": 3, "b.png": 2, "c.png": 0}

    def found(given: Iterable[str]) -> Iterator[Prediction]:
        remaining = iter(given)
        while batch := list(itertools.islice(remaining, 2)):
            for name in batch:
                if not people.get(name):
                    yield Prediction(name, {}, error="bad" if name == "bad.png" else None, note=" and ".join(batch))
                for number in range(1, people.get(name, 0) + 1):
                    person = Person(number, Box(number, 0, 9, 9), "")
                    yield replace(answer(name), person=person, note=" and ".join(batch))

    out = tmp_path / f"answers{suffix}"
    options = {"tasks": TASKS, "about": {}, "group": 2, "people": True}
    assert write_answers(found, names, out, **options) == Written(5, 0, 1)
    whole = out.read_bytes()
    before = set()
    for length in range(len(whole) + 1):
        out.write_bytes(whole[:length])
        done = write_answers(found, names, out, resume=True, **options)
        assert out.read_bytes() == whole, length
        assert (done.pictures, done.bad) == (5, 1)
        before.add(done.before)
    assert before == {0, 2, 4}
    with pytest.raises(UserError, match=r"answer 3 is for 'b.png', but the list has 'c.png'"):
        write_answers(found, ["a.png", "b.png", "c.png"], out, resume=True, **options)


def test_more_pictures_may_follow_and_zeros_of_a_power_cut_are_mended(tmp_path):
    out = tmp_path / "answers.jsonl"
    write(out, NAMES[:3])
    with out.open("ab") as file:
        file.write(bytes(500))
    assert write(out, resume=True) == Written(8, 3, 1)
    assert write(out, resume=True) == Written(8, 8, 1)


def test_what_can_t_be_gone_on_with_is_refused_and_left_as_it_is(tmp_path):
    out = tmp_path / "answers.csv"
    write(out, NAMES[:4])
    whole = out.read_bytes()

    def refused(match: str, *args, **options) -> None:
        with pytest.raises(UserError, match=match) as caught:
            write(out, *args, **options)
        assert "\n" not in str(caught.value) and out.read_bytes() == whole

    refused(r"already exists; continue it with --resume")
    refused(r"answer 2 is for 'quo\"te, comma.png', but the list has 'b.png'", ["a.png", "b.png"], resume=True)
    refused("answer 3 is for 'line.*', but the list ends", NAMES[:2], resume=True)
    refused("made with another model", resume=True, about={"model": "n"})
    refused("made with another temperature", resume=True, about={"model": "m", "temperature": 2})
    refused("not an answer of `predict` for these heads", resume=True, tasks=("glasses",))
    with out.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused("another process is writing", resume=True)
    (tmp_path / "answers.csv.about.json").write_text("{")
    refused("the model behind", resume=True)
    out = tmp_path / "other.jsonl"
    for content in (b"[]\n", b"not json\n", b'{"file": 1\n', b"[" * 10_000 + b"\n"):
        (tmp_path / "other.jsonl.about.json").write_text('{"form": "jsonl", "model": "m"}')
        out.write_bytes(content)
        whole = content
        refused("line 1: not an answer of `predict`", resume=True)


def test_a_table_that_an_earlier_version_began_is_left_as_it_is_and_named(tmp_path):
    """It has no column `note`."""
    out = tmp_path / "answers.csv"
    write(out, NAMES[:4])
    with out.open(newline="") as file:
        rows = [row[:-2] + row[-1:] for row in csv.reader(file)]
    with out.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    whole = out.read_bytes()
    with pytest.raises(
        UserError, match=r"started by an earlier version, whose answers have no column `note`.* another file"
    ):
        write(out, resume=True)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("people", [False, True])
def test_a_column_more_is_written_continued_and_documented(people, tmp_path, monkeypatch):
    """Wherever it stands, and what it holds: the last column is not taken for the error."""
    own = _output.columns

    def with_size(tasks, *, people=False):
        size = _output.Column("size", lambda prediction: len(prediction.source), is_new=True)
        return [*own(tasks, people=people), size]

    out = tmp_path / "answers.csv"
    write(out, NAMES[:2], people=people)
    for module in (_output, stream_module):
        monkeypatch.setattr(module, "columns", with_size)
    with pytest.raises(UserError, match=r"earlier version, whose answers have no column `size`"):
        write(out, resume=True, people=people)
    out.unlink()
    write(out, NAMES[:6], people=people, group=3)
    assert write(out, resume=True, people=people, group=3).bad == 1
    with out.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert [row[header.index("size")] for row in rows] == [str(len(name)) for name in NAMES]
    page = (Path(__file__).resolve().parents[2] / "docs" / "predict.md").read_text()
    assert all(f"`{column.name}`" in page for column in own(("gender",), people=people))


@pytest.mark.parametrize("name", ["answers.txt", "answers", "answers.json"])
def test_the_suffix_says_the_form(name, tmp_path):
    with pytest.raises(UserError, match=r"give a file \.jsonl or \.csv"):
        write(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_keeps_what_is_done(tmp_path):
    def full(names: Iterable[str]) -> Iterator[Prediction]:
        yield from map(answer, itertools.islice(names, 3))
        raise OSError(28, "No space left on device")

    out = tmp_path / "answers.jsonl"
    with pytest.raises(UserError, match=r"No space left on device.*--resume"):
        write_answers(full, NAMES, out, tasks=TASKS, about={"model": "m"})
    assert write(out, resume=True) == Written(8, 3, 1)
    with pytest.raises(UserError, match="can't be written"):
        write(tmp_path / "nowhere" / "answers.csv")


def test_memory_does_not_grow_with_the_list(tmp_path):
    """Names are taken as answers are given, not beforehand."""
    taken = 0

    def names() -> Iterator[str]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield f"{number}.png"

    def watched(given: Iterable[str]) -> Iterator[Prediction]:
        for number, name in enumerate(given, 1):
            assert taken == number
            yield answer(name)

    assert write_answers(watched, names(), tmp_path / "a.csv", tasks=TASKS, about={}).pictures == 1000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stream")
    for index in range(3):
        draw(78, index).image.save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"")
    return sorted(folder.iterdir())


def test_the_command(trained_run, pictures, tmp_path, capsys):
    out = tmp_path / "answers.jsonl"
    command = ["predict", str(trained_run), *map(str, pictures), "--batch-size", "2"]
    assert main([*command, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert (
        said.out == ""
        and f"wrote the answers for 4 pictures to {out}\n" in said.err
        and "1 of the pictures can't be used" in said.err
    )
    whole = out.read_bytes()
    assert [json.loads(line)["file"] for line in whole.splitlines()] == list(map(str, pictures))
    assert main([*command, "--out", str(out)]) == 2 and "already exists" in capsys.readouterr().err
    for length, before in ((len(whole) * 3 // 4, 2), (len(whole), 4)):
        out.write_bytes(whole[:length])
        assert main([*command, "--out", str(out), "--resume"]) == 2
        said = capsys.readouterr().err
        assert f"4 pictures to {out}, {before} of them from an" in said and "1 of the pictures can't" in said
        assert out.read_bytes() == whole

    assert main([*command, "--format", "jsonl"]) == 2
    assert capsys.readouterr().out.encode() == whole
    for wrong in (["--resume"], ["--out", str(out), "--json"], ["--out", str(out), "--format", "csv"]):
        assert main([*command, *wrong]) == 2
        assert "--out" in capsys.readouterr().err


def test_the_command_writes_what_is_odd_about_a_picture(trained_run, tmp_path, capsys):
    """12 bits in a file of 16 bits are nearly black: the answer stands, with a note, in each form."""
    dark, floats = tmp_path / "dark.tif", tmp_path / "floats.tif"
    ramp = np.linspace(0, 4095, 64)[None].repeat(48, 0)
    Image.fromarray(ramp.astype(np.uint16)).save(dark)
    Image.fromarray(ramp.astype(np.float32)).save(floats)
    command = ["predict", str(trained_run), str(dark), str(floats)]
    found = {}
    for form in ("json", "jsonl", "csv", "text"):
        assert main([*command, "--format", form]) == 2  # floats of no stated range are refused
        found[form] = capsys.readouterr().out
    for one, other in (json.loads(found["json"]), map(json.loads, found["jsonl"].splitlines())):
        assert one["note"] == DARK and set(one["heads"]) and "error" not in one
        assert "range" in other["error"] and "note" not in other
    one, other = csv.DictReader(io.StringIO(found["csv"]))
    assert (one["note"], one["error"], other["note"]) == (DARK, "", "") and "range" in other["error"]
    one, other = found["text"].splitlines()
    assert one.startswith(f"{dark}: gender: ") and one.endswith(f"({DARK})") and DARK not in other


def test_the_command_writes_what_the_notebooks_decoding_loses(trained_run, tmp_path, capsys):
    """Floats and 16 bits are answered as the baseline answers them, with a note in each form."""
    weights, run = tmp_path / "w.safetensors", tmp_path / "run"
    assert main(["export", str(trained_run), str(weights)]) == 0
    assert main(["convert", str(weights), "--to", str(run), "--decode", "as_notebook"]) == 0
    floats, deep = tmp_path / "floats.tif", tmp_path / "deep.png"
    ramp = np.linspace(0, 0.9, 64)[None].repeat(48, 0)
    Image.fromarray(ramp.astype(np.float32)).save(floats)
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(deep)
    capsys.readouterr()
    for form in ("jsonl", "csv", "text"):
        assert main(["predict", str(run), str(floats), str(deep), "--format", form]) == 0
        of_floats, of_deep = capsys.readouterr().out.splitlines()[-2:]
        assert FLOATS in of_floats and SINGLE_COLOUR in of_floats  # all of it is black
        assert CLIPPED in of_deep and FLOATS not in of_deep


def test_names_with_control_characters_do_not_reach_the_terminal(trained_run, capsys):
    assert main(["predict", str(trained_run), "a\x1b[2J\nb.png"]) == 2
    assert capsys.readouterr().out.splitlines() == ["a\\x1b[2J\\nb.png: can't be read: No such file or directory"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_it_goes_on_to_the_same_file(number, tmp_path):
    """A process that answers slowly is stopped in the middle."""
    program = (
        "import sys, time, pathlib; sys.path.insert(0, sys.argv[2]); import test_stream as t\n"
        "slow = lambda names: (time.sleep(.005) or t.answer(name) for name in names)\n"
        "names = [f'{n}.png' for n in range(100_000)]\n"
        "t.write_answers(slow, names, pathlib.Path(sys.argv[1]), tasks=t.TASKS, about={'model': 'm'})\n"
    )
    out = tmp_path / "answers.jsonl"
    child = subprocess.Popen([sys.executable, "-c", program, out, Path(__file__).parent], stderr=subprocess.PIPE)
    while not out.exists() or out.stat().st_size < 8192:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    said = child.communicate()[1].decode()
    assert (number == signal.SIGKILL) != ("pictures are done; the same command with --resume continues" in said)
    done = write(out, [f"{n}.png" for n in range(500)], resume=True)
    assert done.pictures == 500 > done.before > 30
    assert [json.loads(line)["file"] for line in out.read_bytes().splitlines()] == [f"{n}.png" for n in range(500)]
