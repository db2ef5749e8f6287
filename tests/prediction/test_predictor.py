"""Predictions: order, batches, bad files, forms of input and output."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from facefeat_jax import Predictor, UserError
from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.prediction.people import PeoplePredictor


@pytest.fixture(scope="module")
def predictor(trained_run):
    return Predictor.from_run(trained_run, batch_size=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for index in range(7):
        paths.append(folder / f"picture {index}, drawn.png")
        draw(77, index).image.save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def mixed(pictures, tmp_path_factory):
    """Good and bad files in turn."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "cut.png").write_bytes(pictures[0].read_bytes()[:2000])
    (folder / "folder.jpg").mkdir()
    return [
        pictures[0],
        folder / "empty.jpg",
        pictures[1],
        folder / "page.jpg",
        folder / "cut.png",
        folder / "absent.jpg",
        folder / "folder.jpg",
        pictures[2],
    ]


@pytest.mark.slow
def test_a_batch_is_split_over_the_devices(resnet18_run, pictures):
    program = (
        "import json, sys, jax; from facefeat_jax import Predictor\n"
        "predictor = Predictor.from_run(sys.argv[1], batch_size=4)\n"
        "answers = predictor.predict(sys.argv[2:])\n"
        "found = [[[*head.probabilities.values()] for head in one.heads.values()] for one in answers]\n"
        "print(json.dumps([jax.device_count(), found]))"
    )
    answers = {}
    for count in (1, 3):
        done = subprocess.run(
            [sys.executable, "-c", program, resnet18_run, *pictures],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        )
        devices, answers[count] = json.loads(done.stdout)
        assert devices == count
    for one, several in zip(answers[1], answers[3], strict=True):
        for mine, split in zip(one, several, strict=True):
            np.testing.assert_allclose(mine, split, atol=1e-5)


def test_every_head_gives_a_label_and_probabilities_that_add_up(predictor, pictures):
    for prediction in predictor.predict(pictures):
        assert prediction.error is None
        assert list(prediction.heads) == ["gender", "glasses", "shirt"]
        for task, head in prediction.heads.items():
            assert tuple(head.probabilities) == predictor.spec.classes[task]
            assert sum(head.probabilities.values()) == pytest.approx(1)
            assert head.probability == max(head.probabilities.values()) == head.probabilities[head.label]


def test_a_picture_gets_the_same_answer_alone_and_in_any_batch(predictor, pictures, trained_run):
    alone = [predictor.predict([path])[0] for path in pictures]
    wide = Predictor.from_run(trained_run, batch_size=32).predict(pictures)
    for one, other in zip(alone, wide, strict=True):
        assert one.source == other.source
        for task in one.heads:
            found, expected = one.heads[task].probabilities, other.heads[task].probabilities
            assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-5)


def test_paths_bytes_images_and_arrays_are_the_same_picture(predictor, pictures):
    image = Image.open(pictures[0])
    forms = [str(pictures[0]), pictures[0], pictures[0].read_bytes(), image, np.asarray(image)]
    answers = predictor.predict(forms)
    assert [answer.source for answer in answers] == [str(pictures[0])] * 2 + ["#2", "#3", "#4"]
    first = answers[0].heads["shirt"].probabilities
    for answer in answers[1:]:
        assert list(answer.heads["shirt"].probabilities.values()) == pytest.approx(list(first.values()), abs=1e-6)
    assert "uint8" in predictor.predict([np.zeros((4, 4), np.float32)])[0].error


def test_bad_files_are_answered_in_their_place_and_the_rest_is_not_affected(predictor, mixed):
    answers = predictor.predict(mixed)
    assert [answer.source for answer in answers] == [str(path) for path in mixed]
    assert [answer.error is None for answer in answers] == [True, False, True, False, False, False, False, True]
    reasons = [answer.error for answer in answers if answer.error]
    for reason, word in zip(reasons, ["empty", "HTML", "cut short", "No such file", "directory"], strict=True):
        assert word in reason
    clean = predictor.predict([path for path, answer in zip(mixed, answers, strict=True) if not answer.error])
    for one, other in zip([answer for answer in answers if not answer.error], clean, strict=True):
        for task in one.heads:
            assert one.heads[task].probability == pytest.approx(other.heads[task].probability, abs=1e-5)


def test_pipes_devices_and_huge_files_are_not_read(predictor, pictures, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    names = [tmp_path / "pipe.jpg", "/dev/zero", tmp_path / "loop.jpg", tmp_path / "huge.jpg", "a\0b.jpg", pictures[0]]
    reasons = [answer.error or "" for answer in predictor.predict(names)]
    words = ["not a regular file", "not a regular file", "symbolic links", "larger than 256 MiB", "null", ""]
    assert all(word in reason and bool(word) == bool(reason) for reason, word in zip(reasons, words, strict=True))


def test_an_answer_that_is_no_number_is_said(trained_run, pictures):
    broken = Predictor.from_run(trained_run)
    broken._batch_stats = jax.tree.map(lambda leaf: leaf * np.nan, broken._batch_stats)
    (answer,) = broken.predict(pictures[:1])
    assert answer.heads == {} and "not a number" in answer.error


def test_one_picture_is_answered_once_however_it_is_given(predictor, pictures):
    path = pictures[0]
    (expected,) = predictor.predict([path])
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for one in (path, str(path), path.read_bytes(), Image.open(path), pixels):
        (answer,) = predictor.predict(one)
        (streamed,) = predictor.stream(one)
        assert answer.heads == streamed.heads == expected.heads
        assert answer.source == (str(path) if isinstance(one, str | Path) else "#0")
    both = predictor.predict(np.stack([pixels, pixels]))
    assert [answer.source for answer in both] == ["#0", "#1"]
    for answer in both:
        assert answer.heads["shirt"].probability == pytest.approx(expected.heads["shirt"].probability, abs=1e-5)
    assert predictor.predict("absent.png")[0].error and predictor.predict(b"")[0].error == "empty file"
    assert [answer.error for answer in predictor.predict(np.zeros((4, 4), np.uint8))] == [
        "not uint8 [height, width, 3], but uint8 [4, 4]"
    ]
    for nothing in (None, 3):
        with pytest.raises(UserError, match="pictures are paths"):
            predictor.predict(nothing)
    people = PeoplePredictor(predictor, None)
    assert [found.source for found in people.stream(str(path))] == [str(path)]


def test_nothing_and_only_bad_pictures(predictor, mixed):
    assert predictor.predict([]) == []
    assert [answer.heads for answer in predictor.predict([mixed[1], mixed[3]])] == [{}, {}]
    with pytest.raises(UserError, match="batch size"):
        Predictor(None, predictor.spec, batch_size=0)


def test_the_stream_does_not_read_everything_first(predictor, pictures):
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield pictures[len(taken) % len(pictures)]

    stream = predictor.stream(endless())
    for _ in range(3):
        next(stream)
    assert len(taken) <= 8
    stream.close()


def test_text_csv_and_json(trained_run, mixed, capsys):
    names = [str(path) for path in mixed]
    assert main(["predict", str(trained_run), *names]) == 2
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.startswith(f"{name}: ") for line, name in zip(lines, names, strict=True)] == [True] * len(names)
    assert lines[1].endswith(": empty file")
    assert "5 of the pictures" in said.err

    assert main(["predict", str(trained_run), *names, "--format", "csv"]) == 2
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["file"] for row in rows] == names
    assert rows[0]["shirt"] and 0 < float(rows[0]["shirt_probability"]) <= 1
    assert (rows[1]["shirt"], rows[1]["error"]) == ("", "empty file")

    assert main(["predict", str(trained_run), names[0], "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert set(answer["heads"]["glasses"]["probabilities"]) == {"no_glasses", "glasses"}


def test_names_may_come_from_standard_input(trained_run, pictures, capsys, monkeypatch):
    def given(data: bytes) -> tuple[int, list[str], str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = main(["predict", str(trained_run), "-", "--format", "jsonl"])
        out, said = capsys.readouterr()
        return code, [json.loads(line)["file"] for line in out.splitlines()], said

    names = [str(path) for path in pictures[:2]]
    assert given("".join(f"{name}\n" for name in names).encode()) == (0, names, "")
    # As Windows' editors save it; blank lines are no names.
    assert given(codecs.BOM_UTF8 + "\r\n \r\n".join(names).encode()) == (0, names, "")
    for data, told in (
        ("\n".join(names).encode("utf-16"), "standard input: in UTF-16"),
        ("\0".join(names).encode(), "standard input, line 1: a NUL byte"),
        (b"\n" + b"x" * 70_000, "standard input, line 2: longer than 65,536 bytes"),
    ):
        code, _, said = given(data)
        assert code == 2 and told in said and len(said.splitlines()) == 1
    monkeypatch.setattr("sys.stdin", None)
    assert main(["predict", str(trained_run), "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_pictures_none_of_which_is_there_need_no_model(trained_run, pictures, tmp_path, capsys, monkeypatch):
    """The lines are those that the model's run would give, for each form."""
    absent = [str(tmp_path / "absent.jpg"), str(tmp_path / "a, b.png"), str(tmp_path / "folder")]
    (tmp_path / "folder").mkdir()
    with_one = [*absent, str(pictures[0])]
    for form in ("text", "jsonl", "csv"):
        assert main(["predict", str(trained_run), *with_one, "--format", form]) == 2
        expected = capsys.readouterr()
        with monkeypatch.context() as patched:
            patched.setattr(Predictor, "from_run", lambda *_, **__: pytest.fail("the model is loaded"))
            assert main(["predict", str(trained_run), *absent, "--format", form]) == 2
        found = capsys.readouterr()
        assert found.out.splitlines() == expected.out.splitlines()[:-1] and "No such file" in found.out
        assert (
            found.err
            == expected.err
            == "facefeat: 3 of the pictures can't be used; the output has the reason for each\n"
        )
    program = "import sys; from facefeat_jax.cli import main; main(sys.argv[1:]); print('jax' in sys.modules)"
    command = [sys.executable, "-c", program, "predict", str(trained_run), *absent]
    assert subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1] == "False"


def test_a_file_that_can_not_be_written_is_refused_before_the_model_is_loaded(
    trained_run, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(Predictor, "from_run", lambda *_, **__: pytest.fail("the model is loaded"))
    (tmp_path / "there.csv").write_text("x")
    for name in ("answers.txt", "there.csv"):
        assert main(["predict", str(trained_run), str(pictures[0]), "--out", str(tmp_path / name)]) == 2
