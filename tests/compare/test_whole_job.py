"""The whole job on both sides, through the script's parts, on a few drawn pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import weights_conversion
from facefeat_jax.system.errors import UserError
from parity import whole_job
from parity.job import SIDES, START, Job
from parity.whole_job_report import report

SCRIPT = Path(whole_job.__file__).resolve().parents[1] / "compare_with_pytorch.py"
TASKS = ("gender", "glasses", "shirt")


def _job(out: Path, data_dir: Path, **changes) -> Job:
    fields = dict(
        sources=("avatars",), weights="random", image_size=32, epochs=2, batch_size=16, seed=1, limit=None, **changes
    )
    return Job(out=out, data_dir=data_dir, **fields)


@pytest.fixture(scope="module")
def finished(avatars_dir: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> tuple[Job, dict]:
    """The job, done by one process of the tests, and what it returned there."""

    def fill(folder: Path) -> None:
        results = whole_job.run(_job(folder / "job", avatars_dir), SIDES)
        (folder / "returned.json").write_text(json.dumps(results, default=str))

    folder = once("whole-job", fill)
    return _job(folder / "job", avatars_dir), json.loads((folder / "returned.json").read_text())


def test_both_sides_did_the_same(finished: tuple[Job, dict]) -> None:
    """The same passes over as many pictures from the same weights: training losses agree but for float32's rounding."""
    _, results = finished
    ours, theirs = results["jax"], results["torch"]
    order = [(epoch, task) for epoch in (1, 2) for task in TASKS]
    for side in (ours, theirs):
        assert [(one["epoch"], one["task"]) for one in side["passes"]] == order
        assert {one["val"]["n"] for one in side["passes"]} == {20}
        assert all(one["images_per_s"] > 0 and one["seconds"] > 0 for one in side["passes"])
        assert set(side["final"]) == set(TASKS)
        # Shirt is trained last: its own validation already saw the final weights. gender's did not.
        assert side["passes"][-1]["val"]["loss"] == pytest.approx(side["final"]["shirt"]["loss"], rel=1e-5)
        assert side["passes"][-3]["val"]["loss"] != pytest.approx(side["final"]["gender"]["loss"], rel=1e-5)
    assert ours["passes"][0]["train_loss"] == pytest.approx(theirs["passes"][0]["train_loss"], rel=1e-2)
    assert ours["passes"][0]["val"]["loss_of_batches"] == pytest.approx(
        theirs["passes"][0]["val"]["loss_of_batches"], rel=1e-2
    )


def test_both_start_from_the_weights_in_the_folder(finished: tuple[Job, dict]) -> None:
    job, _ = finished
    start = weights_conversion.read(job.out / START)
    assert len(start) == 132
    trained = weights_conversion.read(job.out / "torch.pth")
    assert set(trained) == set(start)
    # Random weights: nothing is frozen.
    assert not np.array_equal(trained["backbone.conv1.weight"], start["backbone.conv1.weight"])
    assert int(trained["backbone.bn1.num_batches_tracked"]) == 2 * 3 * 3  # 44 pictures of each task make 3 batches


def test_what_is_done_is_not_done_again(finished: tuple[Job, dict], monkeypatch: pytest.MonkeyPatch) -> None:
    job, results = finished
    monkeypatch.setattr(whole_job, "_in_process", lambda function, job: pytest.fail(f"{function} was run again"))
    again = whole_job.run(job, SIDES)
    assert json.loads(json.dumps(again)) == results


def test_one_side_at_a_time(finished: tuple[Job, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, results = finished
    copy = _job(tmp_path / "copy", job.data_dir)
    shutil.copytree(job.out, copy.out)
    (copy.out / "torch.json").unlink()
    ran = []
    monkeypatch.setattr(whole_job, "_in_process", lambda function, job: ran.append(function) or results["torch"])
    assert set(whole_job.run(copy, ("jax",))) == {"jax"}
    assert ran == []
    assert set(whole_job.run(copy, ("torch",))) == {"jax", "torch"}
    assert ran == [whole_job.train_torch]


def test_a_folder_of_another_job_is_refused(finished: tuple[Job, dict], avatars_dir: Path, tmp_path: Path) -> None:
    job, _ = finished
    with pytest.raises(UserError, match=r"other settings \(limit\)"):
        whole_job.run(Job(**{**job.__dict__, "limit": 8}), ("torch",))
    (tmp_path / "something").touch()
    with pytest.raises(UserError, match="holds something else"):
        whole_job.run(_job(tmp_path, avatars_dir), ("torch",))


def test_the_report_sets_them_side_by_side(finished: tuple[Job, dict]) -> None:
    job, results = finished
    text = report(results)
    for task in TASKS:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {task} | 20 |"))
        for side in SIDES:
            assert f"{results[side]['final'][task]['accuracy']:.3f}" in line
            assert f"{results[side]['final'][task]['loss_of_batches']:.4f}" in line
    assert len([line for line in text.splitlines() if line.startswith(("| 1 |", "| 2 |"))]) == 6
    assert "nothing frozen" in text and "torchvision" in text and "jaxlib" in text
    assert "PyTorch" not in report({"jax": results["jax"]}).replace("PyTorch baseline", "")
    for written in (text, job.command()):
        assert str(job.out) not in written and str(job.data_dir) not in written


def test_wrong_calls_are_one_line_and_exit_2(tmp_path: Path) -> None:
    for arguments, message in (
        (["train", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")], "prepare"),
        (["exact", "--image-size", "8"], "--image-size must be 32 or more"),
        (["train", "--epoch", "3"], "--epochs"),
    ):
        done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / whole_job.JOB).exists()
