"""`export --int8`: a smaller file that `predict` takes, calibrated by its own answers; or a line, and no file."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from facefeat_jax import Predictor
from facefeat_jax.cli import main
from facefeat_jax.evaluation._paired import paired_losses
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import calibrate
from facefeat_jax.evaluation.evaluate import answers_of_run
from facefeat_jax.exporting import int8
from facefeat_jax.prediction.exported import OnnxPredictor
from facefeat_jax.runs.run_folder import open_run

from .test_portable import answers, described


def test_the_file_answers_by_its_own_calibration(trained_run, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(int8, "LEAST", 40)
    file = tmp_path / "model.int8.onnx"
    assert main(["export", str(trained_run), str(file), "--int8"]) == 0
    said = capsys.readouterr().out
    assert "ranges from 44 training pictures" in said and "gender: accuracy" in said and "95% interval" in said
    model, about = onnx.load(str(file)), described(file)
    kinds = {constant.name: constant.data_type for constant in model.graph.initializer}
    quantized = [name for name in kinds if name.endswith("weight_quantized")]
    assert len(quantized) > 8 and all(kinds[name] == onnx.TensorProto.INT8 for name in quantized)
    assert kinds["gender_head.0.weight"] == onnx.TensorProto.FLOAT  # the heads are as they were
    # Temperatures and thresholds are those of its own logits on the run's validation pictures.
    run, found = open_run(trained_run), answers_of_run(trained_run)
    rows = int8.open_rows(found.examples, int8._pixels(run.spec), "off").take(np.arange(20))
    outputs = answers(file, rows)
    own = {task: outputs[f"{task}_logits"].astype(np.float64) for task in run.spec.classes}
    assert any(np.abs(own[task] - found.answers.logits[task]).max() > 1e-4 for task in own)
    wanted = calibrate(Answers.of(found.examples, run.spec.classes, own), step=run.step)
    for task, head in wanted.heads.items():
        assert about["calibration"][task]["temperature"] == pytest.approx(head.temperature)
        assert about["calibration"][task]["threshold"] == head.threshold
    assert {loss["head"] for loss in about["quantization"]["losses"]} == set(own)
    # It is answered by, and near the run.
    ours, theirs = OnnxPredictor(file).predict(list(rows)), Predictor.from_run(trained_run).predict(list(rows))
    same = [one.heads["gender"].label == other.heads["gender"].label for one, other in zip(ours, theirs, strict=True)]
    assert sum(same) >= 16


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("model.onnx", {}, "of its training pictures 44 are there, and --int8 takes 100"),
        ("model.onnx", {"LEAST": 40, "ALLOWED": -1.0}, "is not written: .* accuracy .* more than -100 points"),
        ("model.stablehlo", {}, "--int8 writes ONNX"),
        ("absent/model.onnx", {}, "the folder does not exist"),
    ],
)
def test_what_can_not_be_is_one_line_and_no_file(trained_run, tmp_path, capsys, monkeypatch, name, change, reason):
    for member, value in change.items():
        monkeypatch.setattr(int8, member, value)
    assert main(["export", str(trained_run), str(tmp_path / name), "--int8"]) == 2
    error = capsys.readouterr().err
    assert re.search(reason, error) and len(error.splitlines()) == 1, error
    assert not list(tmp_path.iterdir())


def test_a_loss_is_that_of_the_same_pictures_by_head_and_group(made_answers) -> None:
    before, after = made_answers(wrong=0.0), made_answers(wrong=0.4)
    found = {(loss.head, loss.group): loss for loss in paired_losses(before, after)}
    assert found.keys() >= {("gender", ""), ("gender", "race Blue"), ("gender", "race Green")}
    whole, blue, green = (found["gender", group] for group in ("", "race Blue", "race Green"))
    assert (whole.before, green.after, green.interval) == (1.0, 1.0, (0.0, 0.0)) and blue.n + green.n == whole.n == 400
    low, high = blue.interval
    assert 0.4 < low < blue.before - blue.after < high < 0.6
