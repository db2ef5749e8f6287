"""`export --to onnx` and `--to stablehlo`: the file answers as the run does, says all of it, or is not there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from jax import export
from PIL import Image

from facefeat_jax import Predictor
from facefeat_jax.cli import main
from facefeat_jax.config import load_recipe
from facefeat_jax.evaluation.calibration import Calibration, HeadCalibration
from facefeat_jax.exporting import _onnx_graph as onnx_graph
from facefeat_jax.exporting._agreement import LIMIT
from facefeat_jax.models import ConvNeXt, GroupNorm, ResNet, VisionTransformer
from facefeat_jax.models.registry import ARCHITECTURES, Architecture
from facefeat_jax.models.resnet import Bottleneck
from facefeat_jax.runs.run_folder import create_from_weights
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system import checked_json

from ..made import filled, noise

pytestmark = pytest.mark.long

CLASSES = {"gender": ("female", "male"), "shirt": ("black", "blue", "red")}
FORMATS = ["onnx", "stablehlo"]


def made_run(folder: Path, trunk: str, *, calibration: dict[str, HeadCalibration] | None = None, **fields) -> Path:
    """Makes a run folder of a model with made-up weights; its data are not there."""
    spec = ModelSpec(trunk, CLASSES, fields.pop("image_size", 32), "upright", "random", **fields)
    config = load_recipe("baseline").replace(run=folder, tasks=tuple(CLASSES), data_dir=folder / "nowhere")

    def finish(run: Path) -> None:
        if calibration:
            Calibration(0, calibration).write(run)

    create_from_weights(folder, spec, filled(spec.abstract()), config, finish=finish)
    return folder


def described(file: Path) -> dict:
    """Returns what a file says of its model, read as any program would."""
    if file.suffix == ".onnx":
        (entry,) = onnx.load(str(file)).metadata_props
        text = entry.value
    else:
        with zipfile.ZipFile(file) as archive:
            text = archive.read("about.json").decode()
    return checked_json.checked(json.loads(text)).content


def answers(file: Path, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a file as any program would."""
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"images": pictures}), strict=True))
    with zipfile.ZipFile(file) as archive:
        program = export.deserialize(bytearray(archive.read("model.jax_export")))
    assert program.platforms == ("cpu", "cuda", "tpu")
    return {name: np.asarray(values) for name, values in program.call(pictures).items()}


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("bottleneck", "onnx"),
        ("bottleneck", "stablehlo"),
        ("efficientnet", "onnx"),
        ("vit elsewhere", "onnx"),
        ("grouped", "onnx"),
        ("deep", "onnx"),
        ("padded", "onnx"),
        ("convnext", "onnx"),
        pytest.param("efficientnet", "stablehlo", marks=pytest.mark.slow),
        pytest.param("vit", "onnx", marks=pytest.mark.slow),
        pytest.param("vit elsewhere", "stablehlo", marks=pytest.mark.slow),
    ],
)
def test_every_family_answers_as_its_run(tiny_trunks, tiny_options, family, form, tmp_path, capsys) -> None:
    names = {**tiny_trunks, **tiny_options, "vit elsewhere": tiny_trunks["vit"]}
    fields = {"made_for": 32} if family.startswith("vit") or family == "padded" else {}
    size = {"vit elsewhere": 48, "padded": 44, "deep": 38}.get(family, 32)  # position embeddings are resized; odd maps
    heads = {"gender": HeadCalibration(1.7, 0.6, n=50), "shirt": HeadCalibration(0.8, n=9, never_sure=True)}
    run = made_run(tmp_path / "run", names[family], calibration=heads, image_size=size, **fields)
    file = tmp_path / f"model.{form}"
    assert main(["export", str(run), str(file)]) == 0
    said = capsys.readouterr().out
    assert "largest difference in probability" in said and "drawn" in said
    pictures = np.stack([np.asarray(noise(size, size, seed)) for seed in range(5)])
    found = answers(file, pictures)
    for row, prediction in enumerate(Predictor.from_run(run).predict(list(pictures))):
        for task, names_of in CLASSES.items():
            wanted = [prediction.heads[task].probabilities[name] for name in names_of]
            np.testing.assert_allclose(found[f"{task}_probabilities"][row], wanted, atol=LIMIT)
    assert found["gender_logits"].shape == (5, 1) and found["shirt_logits"].shape == (5, 3)
    one = answers(file, pictures[:1])  # the batch is free
    np.testing.assert_allclose(one["shirt_probabilities"], found["shirt_probabilities"][:1], atol=LIMIT)


@pytest.mark.parametrize("form", FORMATS)
def test_what_decides_an_answer_travels_with_it(trained_run, form, tmp_path, capsys) -> None:
    file = tmp_path / f"model.{form}"
    assert main(["export", str(trained_run), str(file), "--to", form, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["agreement"]["are_own"] and printed["agreement"]["pictures"] == 20
    assert 0 < max(printed["agreement"]["largest"].values()) <= LIMIT
    about = described(file)
    assert about["spec"]["classes"]["gender"] == ["female", "male"] and about["spec"]["image_size"] == 32
    assert about["source"] == {"run": "trained", "step": 12, "checkpoint": "newest"}
    assert set(about["calibration"]) == set(about["spec"]["classes"])
    assert about["licences"]["training data"]["avatars"]
    # By the reference any program can be checked: with Pillow alone, this is what it says.
    reference = about["reference"]
    picture = Image.open(io.BytesIO(base64.b64decode(reference["png"]))).convert("RGB")
    pixels = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == reference["pixels_sha256"]
    found = answers(file, pixels[None])
    for task, values in reference["probabilities"].items():
        np.testing.assert_allclose(found[f"{task}_probabilities"][0], values, atol=LIMIT)


def test_the_onnx_file_is_what_many_runtimes_take(trained_run, tmp_path) -> None:
    file = tmp_path / "model.onnx"
    assert main(["export", str(trained_run), str(file)]) == 0
    model = onnx.load(str(file))
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    attributes = [attribute.name for node in model.graph.node for attribute in node.attribute]
    assert "pads" in attributes and "auto_pad" not in attributes
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    (images,) = model.graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_param or side.dim_value for side in images.type.tensor_type.shape.dim] == ["batch", 32, 32, 3]
    assert "backbone.layer1.0.conv1.weight" in {constant.name for constant in model.graph.initializer}
    first = file.read_bytes()
    assert main(["export", str(trained_run), str(file), "--overwrite"]) == 0
    assert file.read_bytes() == first


def test_a_file_that_answers_otherwise_is_not_written(trained_run, tmp_path, capsys, monkeypatch) -> None:
    """As one whose max-pooling is not padded with minus infinity, but shifted."""
    add = onnx_graph._Graph.add

    def wrong(self, operation, *inputs, **attributes):
        if operation == "MaxPool":
            attributes["pads"] = [0, 0, 2, 2]
        return add(self, operation, *inputs, **attributes)

    monkeypatch.setattr(onnx_graph._Graph, "add", wrong)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"older")
    assert main(["export", str(trained_run), str(file), "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "is not written: its probabilities of gender differ by" in error and len(error.splitlines()) == 1
    assert file.read_bytes() == b"older" and [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_run_in_bfloat16_says_how_far_it_is_from_itself(small_trunk, tmp_path, capsys) -> None:
    run = made_run(tmp_path / "run", small_trunk, dtype="bfloat16")
    assert main(["export", str(run), str(tmp_path / "model.onnx"), "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"]
    assert max(agreement["largest"].values()) <= LIMIT < agreement["from_run"] < 0.1


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("model.pth", ("--to", "onnx"), "--to onnx writes a .onnx file"),
        ("model.onnx", ("--to", "stablehlo"), "--to stablehlo writes a .stablehlo file"),
        ("absent/model.onnx", (), "the folder does not exist"),
        ("model.onnxx", (), "the suffix says the format"),
    ],
)
def test_names_that_do_not_fit_are_refused(trained_run, tmp_path, capsys, name, options, reason) -> None:
    assert main(["export", str(trained_run), str(tmp_path / name), *options]) == 2
    error = capsys.readouterr().err
    assert reason in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_trunk_of_another_kind_is_pointed_to_the_other_format(trained_run, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(onnx_graph, "_TRUNKS", {})
    assert main(["export", str(trained_run), str(tmp_path / "model.onnx")]) == 2
    assert "has no ONNX form here; export it with --to stablehlo" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_has_no_onnx_form_is_one_line(tiny_options, tmp_path, capsys) -> None:
    run = made_run(tmp_path / "run", tiny_options["other norm"])
    assert main(["export", str(run), str(tmp_path / "model.onnx")]) == 2
    error = capsys.readouterr().err
    assert "GroupNorm" in error and "no ONNX form here; export it with --to stablehlo" in error
    assert len(error.splitlines()) == 1 and not (tmp_path / "model.onnx").exists()


@pytest.fixture(scope="session")
def tiny_options() -> dict[str, str]:
    """The names of narrow trunks of other kinds, or with options that change what is computed."""

    def resnet(**options) -> ResNet:
        return ResNet((1, 1, 1, 1), width=8, block=Bottleneck, **options)

    def vit(**options) -> VisionTransformer:
        return VisionTransformer(8, 2, 24, 3, 48, pad=True, **{"image_size": 32, **options})

    grouped = {"groups": 2, "width_per_group": 64, "stem": "cifar", "replace_stride_with_dilation": (False, True, True)}
    groups = {"norm_layer": partial(GroupNorm, num_groups=4)}
    deep = {"stem": "deep_tiered", "avg_down": True, "replace_stride_with_dilation": (False, False, True)}
    stages, last = VisionTransformer.stages_of(2), VisionTransformer.last_of(2)
    convnext = partial(ConvNeXt, (1, 1, 1, 1), (8, 8, 16, 16))
    found = {
        "bottleneck": Architecture("small_bottleneck", resnet, 256, ResNet.STAGES, ResNet.LAST, "tests"),
        "grouped": Architecture("small_grouped", partial(resnet, **grouped), 256, ResNet.STAGES, ResNet.LAST, "tests"),
        "deep": Architecture("small_deep", partial(resnet, **deep), 256, ResNet.STAGES, ResNet.LAST, "tests"),
        "other norm": Architecture("small_norm", partial(resnet, **groups), 256, ResNet.STAGES, ResNet.LAST, "tests"),
        "convnext": Architecture("small_convnext", convnext, 16, ConvNeXt.STAGES, ConvNeXt.LAST, "tests"),
        "padded": Architecture("small_padded_vit", vit, 24, stages, last, "tests", fixed_size=True),
    }
    ARCHITECTURES.update({one.name: one for one in found.values()})
    return {name: one.name for name, one in found.items()}
