"""A run folder as the version before wrote it, without digests: every command opens it, and says so once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax.avatars import draw
from facefeat_jax.cli import main
from facefeat_jax.commands import train
from weights_conversion import read

pytestmark = pytest.mark.long

UNCHECKED = "was written by an earlier version"
NO_RECORD = "has no data.json (an earlier version trained it)"
SPEC = ("trunk", "classes", "image_size", "decode", "weights", "mean", "std", "interpolation")


def _rewrite(path: Path, *, without: tuple[str, ...] = ()) -> dict:
    """Writes a file without its digest and without members that came later; returns what it holds now."""
    values = json.loads(path.read_text())
    kept = {name: value for name, value in values.items() if name not in ("format", "sha256", *without)}
    path.write_text(json.dumps(kept))
    return kept


def as_before(run: Path, to: Path) -> Path:
    """Copies a run folder into the form that it had before digests, `data.json` and a calibration for each step."""
    shutil.copytree(run, to)
    _rewrite(to / "config.json", without=("weights_key",))
    _rewrite(to / "results.json")
    for item in to.glob("checkpoints/*/about/metadata"):
        about = _rewrite(item, without=("devices",))
        item.write_text(json.dumps({**about, "spec": {name: about["spec"][name] for name in SPEC}}))
    newest = max(to.glob("calibration/*.json"), key=lambda path: int(path.stem))
    (to / "calibration.json").write_text(json.dumps({"format": 1, **_rewrite(newest)}))
    shutil.rmtree(to / "calibration")
    for name in ("data.json", "data.npy"):
        (to / name).unlink()
    return to


@pytest.fixture
def earlier(trained_run, tmp_path) -> Path:
    return as_before(trained_run, tmp_path / "earlier")


@pytest.fixture
def called(capsys):
    """Returns a function that runs a command, which has to succeed and to say once what can't be checked."""

    def call(*words: object, record: int = 0) -> str:
        assert main(list(map(str, words))) == 0
        said = capsys.readouterr()
        assert (said.err.count(UNCHECKED), said.err.count(NO_RECORD)) == (1, record), said.err
        return said.out

    return call


def test_predict_and_export_give_the_same_answers(earlier, trained_run, called, tmp_path, capsys):
    picture = tmp_path / "a.png"
    draw(5, 0).image.save(picture)
    found = called("predict", earlier, picture, "--json")  # calibrated: of the run's one calibration.json
    assert main(["predict", str(trained_run), str(picture), "--json"]) == 0
    assert json.loads(found) == json.loads(capsys.readouterr().out)
    assert called("predict", earlier, picture, "--json", "--checkpoint", "newest") == found
    called("export", earlier, tmp_path / "earlier.safetensors")
    assert main(["export", str(trained_run), str(tmp_path / "now.safetensors")]) == 0
    ours, theirs = (read(tmp_path / f"{name}.safetensors") for name in ("earlier", "now"))
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_evaluate_and_audit_answer_and_evaluate_writes_what_this_version_reads(earlier, trained_run, called, capsys):
    found = json.loads(called("evaluate", earlier, "--json", record=1))
    assert main(["evaluate", str(trained_run), "--json"]) == 0
    assert {**found, "notes": []} == json.loads(capsys.readouterr().out)
    assert list((earlier / "calibration").iterdir())
    assert json.loads(called("audit", earlier, "--json", record=1))


def test_resumed_training_ends_with_the_same_weights(earlier, trained_run, tiny, called, tmp_path, capsys):
    newest = max((earlier / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    (earlier / "results.json").unlink()
    results = train(tiny(earlier, resume=True))
    said = capsys.readouterr().err
    assert (said.count(UNCHECKED), said.count(NO_RECORD)) == (1, 1), said
    assert not (earlier / "data.json").exists()
    before = json.loads((trained_run / "results.json").read_text())
    assert (results["heads"], results["history"]) == (before["heads"], before["history"])
    # The checkpoint that was written now is checked.
    picture = tmp_path / "a.png"
    draw(5, 0).image.save(picture)
    assert main(["predict", str(earlier), str(picture)]) == 0
    assert UNCHECKED not in capsys.readouterr().err
