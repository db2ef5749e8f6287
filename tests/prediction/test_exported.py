"""`predict FILE.onnx`: the answers of the run that was exported, without JAX, and no other file's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest

from facefeat_jax import Predictor
from facefeat_jax.cli import main
from facefeat_jax.data.images import decode_resized
from facefeat_jax.evaluation._likeness import HeadLikeness, Likeness
from facefeat_jax.evaluation._likeness_check import features_of
from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration
from facefeat_jax.exporting import export_portable
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.system import checked_json

from ..exporting.test_portable import made_run
from ..made import noise

# Runs the command where nothing of jax is to be found, and says how the modules are.
WITHOUT_JAX = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from facefeat_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def exported(small_trunk, once) -> Path:
    """A folder with a calibrated run, `model.onnx` of it, and pictures; tests only read it."""

    def fill(folder: Path) -> None:
        heads = {"gender": HeadCalibration(1.5, 0.6, n=50), "shirt": HeadCalibration(0.9, n=90, never_sure=True)}
        run = made_run(folder / "run", small_trunk, calibration=heads)
        assert Calibration.read(run, step=0) is not None
        for number in range(3):
            noise(40, 50, number).save(folder / f"{number}.png")
        # Of the three pictures, one is unlike those of gender, two are unlike those of shirt, which withholds.
        opened = open_run(run)
        files = [decode_resized((folder / f"{number}.png").read_bytes(), 32, "upright") for number in range(3)]
        far = features_of(opened.model, opened.spec)(np.stack(files + [np.asarray(noise(32, 32, 9))] * 5))
        head = HeadLikeness.fit(far)
        near, middle, most = np.sort(head.distance(far[:3])).tolist()
        gender = replace(head, threshold=(middle + most) / 2)
        shirt = replace(head, threshold=(near + middle) / 2, withholds=True)
        Likeness(0, False, {"gender": gender, "shirt": shirt}).write(run)
        export_portable(run, folder / "model.onnx", "onnx")
        (folder / "bad.png").write_bytes(b"no picture")

    return once("exported", fill)


def call(*words: object, code: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-c", WITHOUT_JAX, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_the_answers_are_the_runs_without_jax(exported, tmp_path) -> None:
    names = [exported / f"{number}.png" for number in range(3)]
    out, _ = call("predict", exported / "model.onnx", *names, exported / "bad.png", "--format", "jsonl", code=2)
    found = [json.loads(line) for line in out.splitlines()]
    expected = Predictor.from_run(exported / "run").predict([*map(str, names), str(exported / "bad.png")])
    assert found[3]["error"] == expected[3].error
    for answer, prediction in zip(found[:3], expected[:3], strict=True):
        for task, head in prediction.heads.items():
            said = answer["heads"][task]
            assert (said["label"], said["unsure"], said.get("unlike", False)) == (head.label, head.unsure, head.unlike)
            ours = list(answer["heads"][task]["probabilities"].values())
            np.testing.assert_allclose(ours, list(head.probabilities.values()), atol=1e-5)
        assert answer.get("note") == prediction.note
    strange = [prediction.unlike for prediction in expected[:3]]
    assert sorted(map(len, strange)) == [0, 1, 2] and any(one.heads["shirt"].unlike for one in expected[:3])
    # The other ways to the output take it as well: people in boxes, into a file, resumed.
    (tmp_path / "boxes.csv").write_text(f"file,left,top,right,bottom\n{names[0]},10,5,30,25\n")
    table = tmp_path / "out.csv"
    call("predict", exported / "model.onnx", names[0], "--boxes", tmp_path / "boxes.csv", "--out", table)
    assert "person,left,top,right,bottom" in table.read_text().splitlines()[0]


@pytest.fixture
def address(exported) -> Iterator[str]:
    """Where the pictures of `exported` are to be fetched."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, directory=str(exported))

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("people", [False, True])
def test_all_kinds_of_pictures_are_taken_without_jax(exported, address, tmp_path, people) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    film, folder = tmp_path / "film.mp4", tmp_path / "folder"
    folder.mkdir()
    shutil.copy(exported / "0.png", folder)
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(noise(96, 96, number))))
        container.mux(stream.encode())
    words = [folder, film, f"{address}/1.png", "--every", "2", "--draw", tmp_path / "drawn"]
    words += ["--allow-private-addresses", "--format", "jsonl", *(["--faces"] if people else [])]
    out, _ = call("predict", exported / "model.onnx", *words)
    found = [json.loads(line) for line in out.splitlines()]
    names = [str(folder / "0.png"), f"{film}#t=0.000", f"{film}#t=0.200", f"{address}/1.png"]
    assert [one["file"] for one in found] == names
    if people:
        assert {one["note"].partition(";")[0] for one in found} == {"no face found"}
    else:
        (wanted,) = Predictor.from_run(exported / "run").predict(exported / "1.png")
        assert found[3]["heads"]["gender"]["label"] == wanted.heads["gender"].label
        assert found[0]["heads"].keys() == wanted.heads.keys()
    assert (tmp_path / "drawn" / "film-labelled.mp4").is_file() and len(list((tmp_path / "drawn").iterdir())) == 3


def test_a_run_is_exported_once_and_anew_when_its_calibration_is_another(exported, tmp_path) -> None:
    run, picture = tmp_path / "run", exported / "0.png"
    shutil.copytree(exported / "run", run)
    assert main(["predict", str(run), str(picture), "--runtime", "onnx", "--out", str(tmp_path / "first.csv")]) == 0
    (file,) = (run / "onnx").iterdir()
    out, err = call("predict", run, picture, "--runtime", "onnx")  # JAX is not needed again
    assert "exporting" not in err and "unsure" in out
    Calibration(0, {"gender": HeadCalibration(), "shirt": HeadCalibration()}).write(run)
    assert main(["predict", str(run), str(picture), "--runtime", "onnx", "--out", str(tmp_path / "second.csv")]) == 0
    (other,) = (run / "onnx").iterdir()
    assert other != file and "yes" in (tmp_path / "first.csv").read_text()
    assert "yes" not in (tmp_path / "second.csv").read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda about: about["spec"]["classes"].update(gender=["male", "female", "other"]), "not those of the graph"),
        (lambda about: about["spec"].update(image_size=64), "not those of the graph"),
        (lambda about: about["spec"].update(interpolation="bicubic"), "answers of .* for the reference picture"),
        (lambda about: about["spec"].update(decode="sideways"), "decode is 'sideways'"),
        (lambda about: about["calibration"]["gender"].update(threshold=7.0), "invalid value"),
        (lambda about: about.pop("reference"), "'reference'"),
        (lambda about: about["calibration"]["gender"].update(temperature=float("1e99")), "invalid value"),
        (lambda about: about["likeness"]["heads"]["gender"].update(mean="AAAAAA=="), "arrays don't fit"),
        (lambda about: about["likeness"]["heads"]["gender"].update(rest=9.0), "likeness of gender for the reference"),
        (lambda about: about.pop("spec"), "can't be used"),
        (None, "sha256|digest|changed|damaged"),
    ],
)
def test_a_description_that_lies_is_one_line(exported, tmp_path, capsys, change, reason) -> None:
    model = onnx.load(str(exported / "model.onnx"))
    (entry,) = model.metadata_props
    if change is None:
        entry.value = entry.value.replace('"black"', '"white"')  # and the digest is as it was
    else:
        about = checked_json.checked(json.loads(entry.value)).content
        change(about)
        entry.value = json.dumps(checked_json.with_digest(about))
    onnx.save(model, str(tmp_path / "lies.onnx"))
    refused(["predict", str(tmp_path / "lies.onnx"), str(exported / "0.png")], reason, capsys)


def refused(words: list[str], reason: str, capsys) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and re.search(reason, said.err), said.err
    assert not said.out


def test_files_of_another_make_are_one_line(exported, tmp_path, capsys) -> None:
    picture = str(exported / "0.png")
    model = onnx.load(str(exported / "model.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "other.onnx"))
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    refused(["predict", str(tmp_path / "other.onnx"), picture], "was not written by facefeat export", capsys)
    refused(["predict", str(tmp_path / "junk.onnx"), picture], "not a model that ONNX Runtime reads", capsys)
    refused(["predict", str(tmp_path / "absent.onnx"), picture], "there is no file", capsys)
    refused(["predict", str(exported / "model.onnx")], r"^[^.]*name the pictures", capsys)
    explain = ["--explain", str(tmp_path / "maps")]
    refused(["predict", str(exported / "model.onnx"), picture, *explain], "--explain needs the run", capsys)


def test_of_an_earlier_version_one_line_says_what_is_not_checked(exported, tmp_path, capsys) -> None:
    model = onnx.load(str(exported / "model.onnx"))
    (entry,) = model.metadata_props
    about = checked_json.checked(json.loads(entry.value)).content
    del about["likeness"], about["reference"]["distances"]
    entry.value = json.dumps(checked_json.with_digest(about))
    onnx.save(model, str(tmp_path / "older.onnx"))
    assert main(["predict", str(tmp_path / "older.onnx"), str(exported / "0.png")]) == 0
    said = capsys.readouterr()
    assert "written by an earlier version" in said.err and len(said.err.splitlines()) == 1 and "0.png" in said.out
