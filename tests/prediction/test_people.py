"""People in photographs: crops as heads were trained on, boxes from a file or found, and what is said of each."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import unicodedata
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from facefeat_jax.cli import main
from facefeat_jax.data.images import SINGLE_COLOUR
from facefeat_jax.prediction import _face_model
from facefeat_jax.prediction import crops as crops_module
from facefeat_jax.prediction import people as people_module
from facefeat_jax.prediction._drawing import Album, drawn
from facefeat_jax.prediction._face_model import YUNET, face_model_file
from facefeat_jax.prediction._faces import YuNetFinder, _about_eyes, open_finder
from facefeat_jax.prediction.answers import HeadPrediction, Prediction
from facefeat_jax.prediction.boxes import read_boxes
from facefeat_jax.prediction.crops import FRAMES, WHOLE, Box, crop
from facefeat_jax.prediction.people import NO_FACE, PeoplePredictor, locate_by
from facefeat_jax.prediction.predictor import Predictor
from facefeat_jax.system.errors import UserError
from facefeat_jax.tasks import BASELINE_TASKS, frames_of

cv2 = pytest.importorskip("cv2")

FACE = Box(40, 30, 60, 50)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def predictor(trained_run):
    return Predictor.from_run(trained_run, batch_size=8)


# --- crops


def test_a_crop_lies_around_the_face_as_its_frame_says():
    picture = noise(300, 300)
    face = Box(140, 100, 160, 120)
    for name, frame in FRAMES.items():
        found = crop(picture, face, name)
        box = (150 - 20 * frame.left, 110 - 20 * frame.top, 150 + 20 * frame.right, 110 + 20 * frame.bottom)
        left, top, right, bottom = map(round, box)
        np.testing.assert_array_equal(found, np.asarray(picture)[top:bottom, left:right])
    assert crop(picture, face, WHOLE) is picture


def test_what_reaches_outside_is_filled_with_the_edge_and_the_face_stays_in_its_place():
    picture = noise(60, 70)
    face = Box(0, 0, 40, 40)
    found = np.asarray(crop(picture, face, "head"))
    around = FRAMES["head"].around(face)
    left, top, right, bottom = map(round, (around.left, around.top, around.right, around.bottom))
    assert left < 0 and top < 0 and right < 60 and bottom < 70
    pixels = np.asarray(picture)
    assert found.shape == (bottom - top, right - left, 3)
    np.testing.assert_array_equal(found[-top:, -left:], pixels[:bottom, :right])
    np.testing.assert_array_equal(found[:-top, :-left], np.broadcast_to(pixels[0, 0], (-top, -left, 3)))


def test_a_body_that_is_not_in_the_picture_makes_no_crop():
    portrait = noise(50, 62)
    assert crop(portrait, Box(5, 10, 45, 50), "upper_body") is None
    assert crop(portrait, Box(5, 10, 45, 50), "face") is not None
    assert crop(portrait, Box(100, 10, 140, 50), "face") is None
    # Nor does a box so large that filling up what is outside would take all memory.
    assert crop(portrait, Box(-1e8, -1e8, 1e8, 1e8), "face") is None
    assert crop(portrait, Box(-1e308, 0, 1e308, 50), "face") is None


def test_every_head_of_the_baseline_has_a_frame_and_others_take_the_whole():
    assert frames_of(BASELINE_TASKS) == {"gender": "face", "glasses": "head", "shirt": "upper_body"}
    assert frames_of(("hat",)) == {"hat": WHOLE}


# --- boxes


HEADER = "file,left,top,right,bottom\n"


def listed(tmp_path, text, name="boxes.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    return read_boxes(tmp_path / name)


def test_boxes_are_read_by_picture(tmp_path):
    noise(10, 10).save(tmp_path / "a.png")
    found = listed(
        tmp_path, "file,person,left,top,right,bottom\na.png,x,1,2,3.5,4\nelsewhere/b.png,y,0,0,9,9\na.png,z,5,5,6,6\n"
    )
    assert found.of(tmp_path / "a.png", (10, 10)) == [Box(1, 2, 3.5, 4), Box(5, 5, 6, 6)]
    assert found.of("elsewhere/b.png", (10, 10)) == [Box(0, 0, 9, 9)]
    assert found.of("b.png", (10, 10)) == []


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfFile, Left ,TOP,Right,Bottom\r\n\r\n a.png , 1, 2,3,4\r\n",
        b"file;left;top;right;bottom\na.png;1;2;3;4\n",
        b"sep=\t\r\nfile\tleft\ttop\tright\tbottom\r\na.png\t1\t2\t3\t4\r\n",
        b'file,left,top,right,bottom,note\n"./x/../a.png",1,2,3,4,"one, two"\n',
        b"file,left,top,right,bottom\n.\\a.png,1,2,3,4",
    ],
)
def test_boxes_of_spreadsheets_are_the_same(tmp_path, text):
    (tmp_path / "a.png").touch()
    assert listed(tmp_path, text).of(tmp_path / "a.png", (10, 10)) == [Box(1, 2, 3, 4)]


def test_two_links_to_one_file_are_two_pictures(tmp_path):
    (tmp_path / "blob").touch()
    for name in ("one.png", "two.png"):
        (tmp_path / name).symlink_to("blob")
    found = listed(tmp_path, HEADER + "one.png,1,2,3,4\ntwo.png,5,5,8,8\n")
    assert found.of(tmp_path / "one.png", (10, 10)) == [Box(1, 2, 3, 4)]
    assert found.of(tmp_path / "two.png", (10, 10)) == [Box(5, 5, 8, 8)]
    assert found.of(tmp_path / "blob", (10, 10)) == []


def test_composed_and_decomposed_letters_are_one_name_unless_both_are_there(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).touch()
    found = listed(tmp_path, HEADER + f"{composed},1,2,3,4\n")
    assert found.of(tmp_path / decomposed, (10, 10)) == [Box(1, 2, 3, 4)]
    (tmp_path / composed).touch()
    found = listed(tmp_path, HEADER + f"{composed},1,2,3,4\n{decomposed},5,5,8,8\n")
    assert found.of(tmp_path / decomposed, (10, 10)) == [Box(5, 5, 8, 8)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'file', 'left', 'top', 'right', 'bottom'; the first line has: nothing"),
        ("file,left,top,right\na,1,2,3\n", "no column 'bottom'; the first line has"),
        (HEADER, "no rows below the header"),
        (HEADER + "a.png,1,2,3,4\na.png,5,2,3,4\n", "line 3: 5,2,3,4 is not a box; left must be below right"),
        (HEADER + "a.png,1,2,x,4\n", "line 2: 1,2,x,4 is not a box; write numbers"),
        (HEADER + 'a.png,"1,5",2,3,4\n', "line 2: 1,5,2,3,4 is not a box; write numbers with a decimal point"),
        (HEADER + "a.png,1,2,nan,4\n", "line 2: 1,2,nan,4 is not a box"),
        (HEADER + "a.png,1,2,1,4\n", "line 2: 1,2,1,4 is not a box"),
        (HEADER + '"a\n.png",1,2,3,4\na.png,1,2\n', "line 4: 3 fields instead of 5"),
        (HEADER + "my,a.png,1,2,3,4\n", "line 2: 6 fields instead of 5; put a name with a comma in quotes"),
        (
            HEADER + "a.png,0.2,0.2,0.7,0.7\nb.png,5,5,9,9\n",
            "line 2: .* less than a pixel .*; fractions from 0 to 1 and pix",
        ),
        (HEADER + " ,1,2,3,4\n", "line 2: no file name"),
        (HEADER.encode() + b"\xe9.png,1,2,3,4\n", r"not UTF-8 \(line 2, byte 27\)"),
        (HEADER + "a\0.png,1,2,3,4\n", "line 2: a NUL byte"),
    ],
)
def test_a_file_that_holds_no_boxes_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        listed(tmp_path, text)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="can't be read"):
        read_boxes(tmp_path / "absent.csv")


# --- people


def test_each_head_looks_at_its_own_crop(predictor, tmp_path):
    pictures = [tmp_path / "two.png", tmp_path / "none.png", tmp_path / "broken.png", tmp_path / "one.png"]
    two = noise(200, 220)
    two.save(pictures[0])
    noise(80, 80, 1).save(pictures[1])
    pictures[2].write_bytes(b"nothing")
    noise(90, 160, 2).save(pictures[3])
    faces = {str(pictures[0]): [FACE, Box(120, 40, 150, 70)], str(pictures[3]): [FACE]}
    people = PeoplePredictor(predictor, lambda source, _: faces.get(source, []), keep_pictures=True)
    found = list(people.stream(pictures))
    assert [one.source for one in found] == [str(path) for path in pictures]
    assert [len(one.predictions) for one in found] == [2, 1, 1, 1]
    for number, face in enumerate(faces[str(pictures[0])]):
        prediction = found[0].predictions[number]
        assert prediction.person.number == number + 1
        assert prediction.person.face == face
        for task, frame in frames_of(BASELINE_TASKS).items():
            (alone,) = predictor.predict([crop(two, face, frame)])
            assert prediction.heads[task].label == alone.heads[task].label
            assert prediction.heads[task].probability == pytest.approx(alone.heads[task].probability, abs=1e-6)
    none, broken = found[1].predictions[0], found[2].predictions[0]
    assert (none.note, none.error, none.heads) == (NO_FACE, None, {})
    assert broken.error.startswith("not an image")
    assert found[2].picture is None
    assert found[0].picture.size == (200, 220)


def test_many_pictures_come_out_in_order_and_without_their_pixels(predictor, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(21)]
    for number, path in enumerate(paths):
        noise(40, 40, number).save(path)
    # Every third has a face, others have none.
    people = PeoplePredictor(
        predictor, lambda s, _: [Box(5, 5, 30, 30)] if int(s[: -len(".png")].split("/")[-1]) % 3 == 0 else []
    )
    found = list(people.stream(paths))
    assert [one.source for one in found] == [str(path) for path in paths]
    assert [bool(one.predictions[0].heads) for one in found] == [number % 3 == 0 for number in range(21)]
    assert all(one.picture is None for one in found)


def test_a_box_outside_is_said_and_does_not_stop_the_others(predictor, tmp_path):
    path = tmp_path / "one.png"
    noise(100, 80).save(path)
    boxes = [Box(150, 10, 170, 30), Box(80, 20, 130, 70), Box(10, 10, 30, 30)]
    (found,) = PeoplePredictor(predictor, lambda *_: boxes).stream([path])
    outside, partly, inside = found.predictions
    assert outside.heads == {}
    assert outside.note == "the box lies outside the picture of 100 by 80 pixels"
    assert partly.note.startswith("the box extends beyond the picture of 100 by 80 pixels; too little")
    assert set(partly.heads) == {"gender", "glasses"}
    assert inside.note is None
    assert set(inside.heads) == {"gender", "glasses", "shirt"}


def test_crops_are_resized_as_they_are_cut_and_predicted_some_at_a_time(predictor, tmp_path, monkeypatch):
    """Kept at full size, 60 of one photograph took ten gigabytes; the answers are those of such crops, bit by bit."""
    path, other = tmp_path / "crowd.png", tmp_path / "other.png"
    noise(300, 260).save(path)
    noise(90, 90, 1).save(other)
    boxes = [Box(7 * n % 250, 5 * n % 200, 7 * n % 250 + 40, 5 * n % 200 + 40) for n in range(60)]
    picture = Image.open(path).convert("RGB")
    frames = list(dict.fromkeys(predictor.spec.frames.values()))
    parts = [(n, frame, part) for n, box in enumerate(boxes) for frame in frames if (part := crop(picture, box, frame))]
    lone = [part for frame in frames if (part := crop(Image.open(other).convert("RGB"), boxes[0], frame))]
    expected = predictor.predict([part for _, _, part in parts] + lone)
    alive, most = [], []

    def watched(*arguments):
        cut = crop(*arguments)
        alive.append(weakref.ref(cut))
        most.append(sum(one() is not None for one in alive))
        return cut

    monkeypatch.setattr(people_module, "crop", watched)
    monkeypatch.setattr(people_module, "_AHEAD_BYTES", 10 * 3 * predictor.spec.image_size**2)
    monkeypatch.setattr(people_module, "_CHUNK_BYTES", 25 * 3 * predictor.spec.image_size**2)
    found, last = PeoplePredictor(predictor, lambda source, _: boxes if source == str(path) else boxes[:1]).stream(
        [path, other]
    )
    assert len(most) == len(parts) + len(lone) > 100 and max(most) <= 4
    given = {task: frame for task, frame in predictor.spec.frames.items()}
    for (n, frame, _), alone in zip(parts, expected, strict=False):
        for task in [task for task, of in given.items() if of == frame]:
            assert found.predictions[n].heads[task] == alone.heads[task]
    assert len(found.predictions) == 60 and len(last.predictions) == 1


def test_a_picture_that_is_gone_before_its_last_crops_are_cut_has_an_error_and_the_next_its_answers(
    predictor, tmp_path, monkeypatch
):
    crowd, other = tmp_path / "crowd.png", tmp_path / "other.png"
    noise(300, 260).save(crowd)
    noise(90, 90, 1).save(other)
    boxes = [Box(7 * n % 250, 5, 7 * n % 250 + 40, 45) for n in range(20)]
    monkeypatch.setattr(people_module, "_AHEAD_BYTES", 10 * 3 * predictor.spec.image_size**2)
    people = PeoplePredictor(predictor, lambda source, _: boxes if source == str(crowd) else boxes[:1])
    ((expected,),) = (one.predictions for one in people.stream([other]))
    read, seen = predictor.read, []

    def once(source):
        if source in seen:
            Path(source).unlink()
        seen.append(source)
        return read(source)

    monkeypatch.setattr(predictor, "read", once)
    gone, found = people.stream([crowd, other])
    assert [one.error for one in gone.predictions] == [
        "changed while it was read (can't be read: No such file or directory)"
    ]
    (answer,) = found.predictions  # the last digits depend on what else is in a batch
    assert answer.person == expected.person and answer.heads.keys() == expected.heads.keys()
    for task, head in answer.heads.items():
        assert head.probabilities == pytest.approx(expected.heads[task].probabilities, abs=1e-4)


def test_a_crop_that_reaches_outside_is_the_padded_one(monkeypatch):
    picture = noise(40, 30)
    pixels = np.asarray(picture)
    monkeypatch.setattr(crops_module, "_BAND_PIXELS", 200)
    for face in (Box(-10, -5, 20, 15), Box(25, 12, 60, 31), Box(-30, -30, 70, 60), Box(30, 2, 39, 9)):
        left, top, right, bottom = crops_module.place(picture.size, face, "face")
        rows, columns = np.arange(top, bottom).clip(0, 29), np.arange(left, right).clip(0, 39)
        np.testing.assert_array_equal(crop(picture, face, "face"), pixels[rows][:, columns])
    assert crop(picture, Box(10, -1e7, 11, 1e7), "face") is None  # a resize would make it larger on its way


def test_notes_of_a_picture_go_to_each_person(predictor, tmp_path):
    Image.new("RGB", (90, 90), "red").save(tmp_path / "red.png")
    (found,) = PeoplePredictor(predictor, lambda *_: [Box(-30, 10, 10, 50), Box(10, 10, 40, 40)]).stream(
        [tmp_path / "red.png"]
    )
    assert [one.note.count(SINGLE_COLOUR) for one in found.predictions] == [1, 1]
    assert "extends beyond" in found.predictions[0].note


def test_boxes_are_of_the_turned_picture_where_the_run_turns_it(predictor, tmp_path):
    upright = noise(60, 100)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned.save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert predictor.spec.decode == "upright"
    people = PeoplePredictor(predictor, lambda *_: [Box(10, 10, 40, 40)])
    one, other = people.stream([tmp_path / "turned.png", tmp_path / "upright.png"])
    assert one.predictions[0].heads == other.predictions[0].heads


def test_the_whole_picture_is_predicted_as_without_people(predictor, tmp_path):
    path = tmp_path / "one.png"
    noise(100, 80).save(path)
    (found,) = PeoplePredictor(predictor, None).stream([path])
    assert found.predictions == predictor.predict([path])


# --- the command


def call(capsys, *arguments):
    code = main(["predict", *map(str, arguments)])
    return code, capsys.readouterr()


def test_the_command_answers_for_each_person(trained_run, tmp_path, capsys, monkeypatch):
    noise(100, 120).save(tmp_path / "a.png")
    noise(60, 60).save(tmp_path / "b.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,left,top,right,bottom\na.png,10,10,30,30\na.png,50,10,70,30\n")
    arguments = (trained_run, tmp_path / "a.png", tmp_path / "b.png", "--boxes", boxes)
    code, out = call(capsys, *arguments, "--draw", tmp_path / "drawn")
    lines = out.out.splitlines()
    assert code == 0
    assert len(lines) == 3
    assert lines[0].startswith(f"{tmp_path / 'a.png'} [1: 10,10,30,30]: gender: ")
    assert lines[2] == f"{tmp_path / 'b.png'}: no box given"
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.png.png", "b.png.png"]
    with Image.open(tmp_path / "drawn" / "a.png.png") as picture:
        assert picture.size == (300, 360)  # enlarged, so that there is room for the words

    code, out = call(capsys, *arguments, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out.out)))
    assert [(row["person"], row["left"], row["note"]) for row in rows] == [
        ("1", "10", ""),
        ("2", "50", ""),
        ("", "", "no box given"),
    ]
    code, out = call(capsys, *arguments, "--json")
    first, _, last = json.loads(out.out)
    assert first["person"] == 1
    assert first["face"] == {"left": 10, "top": 10, "right": 30, "bottom": 30}
    assert last == {"file": str(tmp_path / "b.png"), "heads": {}, "note": "no box given"}

    answers = tmp_path / "answers.csv"
    assert call(capsys, *arguments, "--out", answers)[0] == 0
    assert [row["person"] for row in csv.DictReader(answers.read_text().splitlines())] == ["1", "2", ""]
    written = answers.read_bytes()
    answers.write_bytes(written[:-20])
    assert call(capsys, *arguments, "--out", answers, "--resume")[0] == 0
    assert answers.read_bytes() == written
    boxes.write_text(boxes.read_text() + "b.png,1,1,30,30\n")
    code, out = call(capsys, *arguments, "--out", answers, "--resume")
    assert code == 2
    assert "was made with another people" in out.err

    code, out = call(capsys, *arguments, "--faces")
    assert code == 2
    assert "give only one of them" in out.err


def test_shares_are_scaled_and_lines_for_other_pictures_are_reported(trained_run, tmp_path, capsys):
    for name in "ab":
        noise(100, 80).save(tmp_path / f"{name}.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(HEADER + "a.png,0.1,0.25,0.4,0.5\nb.png,0.5,0.5,1,1\ntypo.png,0.1,0.1,0.2,0.2\n")
    out = tmp_path / "answers.csv"
    arguments = (trained_run, tmp_path / "a.png", tmp_path / "b.png", "--boxes", boxes, "--out", out)
    told = []
    for resume in ([], ["--resume"]):
        code, said = call(capsys, *arguments, *resume)
        assert code == 0
        told.append(said.err)
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        assert [(row["left"], row["top"], row["right"], row["bottom"]) for row in rows] == [
            ("10", "20", "40", "40"),
            ("50", "40", "100", "80"),
        ]
    for text in told:
        assert "all boxes lie between 0 and 1" in text
        assert "1 of its 3 lines are not for a picture that was given: typo.png (line 4)" in text

    code, said = call(
        capsys, trained_run, tmp_path / "b.png", "--boxes", listed(tmp_path, HEADER + "x.png,1,1,9,9").path
    )
    assert code == 2
    assert "none of its lines is for a picture that was given: x.png (line 2)" in said.err


def test_without_opencv_the_advice_names_the_extra(trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    code, out = call(capsys, trained_run, tmp_path / "a.png", "--faces")
    assert code == 2
    assert out.err.strip() == (
        "facefeat: finding faces needs cv2, which is not installed; run in the checkout: pip install '.[predict,faces]'"
    )


# --- finding faces


def test_the_cascade_finds_no_face_where_there_is_none_and_is_used_by_threads():
    from concurrent.futures import ThreadPoolExecutor

    finder = open_finder()
    plain = [np.full((90, 70, 3), value, np.uint8) for value in (0, 90, 255, 30)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(finder, plain)) == [[], [], [], []]
    assert finder(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.realdata
def test_the_portraits_have_a_face_each(realdata):
    finder = open_finder()
    for path in sorted((realdata / "portraits").iterdir()):
        picture = Image.open(path).convert("RGB")
        (box,) = finder(np.asarray(picture))
        assert box.within(picture.size) is not None
        assert abs(box.width - box.height) < 1
        # Larger than the detector looks at: the box is in the picture's own pixels.
        assert box.width > 0.1 * min(picture.size)


def test_a_finder_is_loaded_once_for_threads_that_come_one_after_another(tmp_path, predictor, monkeypatch):
    path, made, load = tmp_path / "plain.png", [], cv2.CascadeClassifier
    Image.new("RGB", (90, 70), (30, 90, 30)).save(path)
    monkeypatch.setattr(cv2, "CascadeClassifier", lambda file: made.append(file) or load(file))
    people = PeoplePredictor(predictor, locate_by(open_finder()), threads=1)
    for _ in range(3):
        (found,) = people.stream([path])
        assert found.predictions[0].note.startswith(NO_FACE)
    assert len(made) == 1


def test_a_face_model_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist; give a YuNet"):
        open_finder(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"bad\.onnx is not a YuNet model that OpenCV reads"):
        open_finder(tmp_path / "bad.onnx")


def test_yunet_is_fetched_once_and_checked_and_the_cascade_stands_in_for_it(trained_run, tmp_path, monkeypatch, capsys):
    scene = tmp_path / "plain.png"
    Image.new("RGB", (90, 70), (30, 90, 30)).save(scene)
    content = b"a face model"
    entry = dataclasses.replace(YUNET, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    monkeypatch.setattr(_face_model, "YUNET", entry)
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FACEFEAT_WEIGHTS_MIRROR", (tmp_path / "mirror").as_uri())
    # Not to be had: predict says so and finds faces all the same.
    assert main(["predict", str(trained_run), str(scene), "--face-model", "yunet"]) == 0
    told = capsys.readouterr()
    assert "could not copy YuNet" in told.err and "Haar cascade instead" in told.err and told.err.count("\n") == 1
    assert "no face found" in told.out
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / YUNET.file).write_bytes(content)
    path = face_model_file(Path("yunet"))
    assert path is not None and path.read_bytes() == content
    (tmp_path / "mirror" / YUNET.file).unlink()
    assert face_model_file(Path("yunet")) == path
    path.write_bytes(content[:-1] + b"x")  # damaged in the cache, and gone from the mirror
    assert face_model_file(Path("yunet")) is None
    assert len(YUNET.sha256) == 64 and int(YUNET.sha256, 16)
    given = tmp_path / "mine.onnx"
    assert face_model_file(given) == given and face_model_file(None) is None


def test_yunets_rows_become_boxes_in_the_pictures_own_pixels(tmp_path, monkeypatch):
    """With the rows that OpenCV documents; the detector itself needs a model file."""
    asked = []

    class Detector:
        def setInputSize(self, size):
            asked.append(size)

        def detect(self, pixels):
            asked.append(pixels.shape)
            rows = [[500, 100, 60, 80, 520, 130, 560, 130, 540, 150, 525, 165, 555, 165, 0.9]]
            rows += [[100, 100, 60, 80, 110, 130, 150, 130, 130, 150, 115, 165, 145, 165, 0.95]]
            return 1, np.array(rows, np.float32)

    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_, **__: Detector())
    finder = YuNetFinder(tmp_path / "model.onnx")
    left, right = finder(np.zeros((800, 1600, 3), np.uint8))
    assert asked == [(800, 400), (400, 800, 3)]
    assert left.right < right.left
    # Twice the size; the eyes are 40 apart at 130 down, so the box is 2.72 x 40 wide and lies a little lower.
    assert right.width == pytest.approx(2 * 2.72 * 40)
    assert ((right.left + right.right) / 2, (right.top + right.bottom) / 2) == pytest.approx((1080, 2 * (130 + 13.2)))
    assert _about_eyes(np.array([0, 0, 60, 80, 30, 30, 32, 30, *[0] * 6, 1])).width == 60


# --- drawing


def test_captions_stay_inside_and_do_not_cover_each_other(predictor, tmp_path):
    path = tmp_path / "one.png"
    Image.new("RGB", (300, 300), "white").save(path)
    boxes = [Box(100, 240, 150, 290), Box(110, 240, 160, 290), Box(280, 0, 300, 20)]
    (found,) = PeoplePredictor(predictor, lambda *_: boxes, keep_pictures=True).stream([path])
    filled = []
    rectangle = ImageDraw.ImageDraw.rectangle

    def seen(self, place, fill=None, outline=None, width=1):
        if fill:
            filled.append(place)
        rectangle(self, place, fill=fill, outline=outline, width=width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "rectangle", seen)
        picture = drawn(found.picture, found.predictions)
    assert len(filled) == 3
    for number, place in enumerate(filled):
        assert 0 <= place[0] < place[2] < 300
        assert 0 <= place[1] < place[3] < 300
        for other in filled[:number]:
            assert place[2] < other[0] or other[2] < place[0] or place[3] < other[1] or other[3] < place[1]
    assert np.asarray(picture).min() < 255
    assert np.asarray(found.picture).min() == 255


def test_a_caption_says_unsure_as_the_text_does(monkeypatch):
    said = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "multiline_text", lambda self, place, text, **_: said.append(text))
    heads = {
        "gender": HeadPrediction("female", 0.52, {"female": 0.52, "male": 0.48}, True),
        "glasses": HeadPrediction("no_glasses", 0.97, {"no_glasses": 0.97, "glasses": 0.03}, False),
        "shirt": HeadPrediction("red", 0.9, {"red": 0.9, "blue": 0.1}, True, True),
    }
    drawn(noise(40, 30), [Prediction("a.png", heads)])
    assert said == ["gender: unsure (female 52%)\nglasses: no glasses 97%\nshirt: unsure"]


def test_pictures_of_one_name_are_all_kept(tmp_path):
    album = Album(tmp_path / "drawn")
    names = [album.add(f"{folder}/a.jpg", noise(20, 20), []).name for folder in "xyz"]
    assert names == ["a.jpg.png", "a.jpg-2.png", "a.jpg-3.png"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be made"):
        Album(tmp_path / "file")
