"""Grad-CAM: against the definition, on trunks of each family, per head; and the pictures that `predict` writes."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from facefeat_jax.cli import main
from facefeat_jax.evaluation.explain import Explainer, Frozen, explained_stage, overlay, strip
from facefeat_jax.forward import prepared
from facefeat_jax.models import MultiTaskModel, ResNet, VisionTransformer, abstract, efficientnet_b0
from facefeat_jax.models.trunk import POOLED, Trunk
from facefeat_jax.runs.run_folder import open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import Task

pytestmark = pytest.mark.long

TASKS = (Task("glasses", ("no", "yes")), Task("shirt", ("black", "blue", "red")))


@pytest.fixture(scope="module")
def small():
    rngs = nnx.Rngs(0)
    model = MultiTaskModel(ResNet((1, 1, 1, 1), width=8, rngs=rngs), TASKS, rngs=rngs)
    model.eval()
    spec = ModelSpec("resnet18", {task.name: task.classes for task in TASKS}, 32, "upright", "random")
    return model, spec


@pytest.fixture(scope="module")
def rows():
    return np.random.RandomState(0).randint(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def test_is_the_sum_of_channels_weighed_by_their_mean_gradient(small, rows):
    model, spec = small
    explainer = Explainer(model, spec)
    assert explainer.stage == "layer2"
    found = explainer.maps(rows, ("glasses", "shirt"))
    maps = nnx.jit(lambda trunk: trunk(prepared(jnp.asarray(rows), spec, jnp.float32, None), until="layer2"))(
        model.trunk
    )
    graphdef, state = nnx.split(model)
    for task, number in (("glasses", 0), ("shirt", 1), ("shirt", 2)):
        one = maps[number : number + 1]  # one picture alone, one number
        logits = np.asarray(nnx.jit(lambda model: model(one, after="layer2"))(model)[task][0])  # noqa: B023
        at, sign = (int(np.argmax(logits)), 1) if task == "shirt" else (0, 1 if logits[0] > 0 else -1)

        @jax.jit
        @jax.grad
        def gradient(moved):
            return sign * nnx.merge(graphdef, state, copy=True)(moved, after="layer2")[task][0, at]  # noqa: B023

        weights = np.asarray(gradient(one)).mean(axis=(0, 1, 2))
        expected = np.maximum((weights * np.asarray(one[0])).sum(-1), 0)
        assert expected.max() > 0
        assert np.allclose(found[task][number], expected / expected.max(), atol=1e-3)


def test_a_part_that_is_compiled_already_is_used_where_it_ends_before_the_map(small, rows):
    model, spec = small
    used = []

    def outputs(images):
        used.append(len(images))
        return model.trunk(prepared(jnp.asarray(images), spec, jnp.float32, None), until="layer1")

    expected = Explainer(model, spec).maps(rows, ("glasses", "shirt"))
    found = Explainer(model, spec, Frozen("layer1", outputs)).maps(rows, ("glasses", "shirt"))
    assert used == [3]
    for task, values in expected.items():
        assert np.allclose(found[task], values, atol=1e-4)
    for until in ("layer2", POOLED):
        late = Explainer(model, spec, Frozen(until, outputs)).maps(rows, ("glasses",))
        assert np.allclose(late["glasses"], expected["glasses"], atol=1e-4)
    assert used == [3]


def test_each_head_has_its_own(small, rows):
    found = Explainer(*small).maps(rows, ("glasses", "shirt"))
    assert found["glasses"].shape == (3, 4, 4)
    assert not np.allclose(found["glasses"], found["shirt"], atol=0.05)
    for values in found.values():
        assert values.min() >= 0 and values.max() <= 1
    alone = Explainer(*small).maps(rows[1:2], ("glasses", "shirt"))
    assert np.allclose(alone["shirt"][0], found["shirt"][1], atol=1e-4)


@pytest.mark.usefixtures("unchecked")  # its trunk is a stand-in
def test_shows_where_the_evidence_is():
    """A head that adds up red: the map glows where the picture is red, and the other head's where it is blue."""

    class Pixels(Trunk):
        """Its map is the picture itself, its features the mean colour."""

        STAGES = {"only": ()}  # noqa: RUF012
        LAST = ("only",)

        def __init__(self):
            self.in_channels = self.num_features = 3
            self.dtype, self.remat, self.fc = jnp.float32, False, None

        def stage(self, name, inputs, *, mask=None, rngs=None):
            return inputs

        def pooled(self, inputs):
            return inputs.mean(axis=(1, 2))

    tasks = (Task("red", ("no", "yes")), Task("blue", ("no", "yes")))
    model = MultiTaskModel(Pixels(), tasks, rngs=nnx.Rngs(0))
    for channel, task in ((0, "red"), (2, "blue")):
        head = model.heads[task]
        head.hidden.kernel.set_value(jnp.zeros((3, 256)).at[channel].set(1.0))
        head.hidden.bias.set_value(jnp.full(256, 5.0))
        head.output.kernel.set_value(jnp.ones((256, 1)))
    spec = ModelSpec("resnet18", {task.name: task.classes for task in tasks}, 8, "upright", "random")
    picture = np.full((1, 8, 8, 3), 110, np.uint8)
    picture[0, :3, :3] = (250, 0, 0)
    picture[0, 5:, 5:] = (0, 0, 250)
    found = Explainer(model, spec).maps(picture, ("red", "blue"))
    assert found["red"][0, :3, :3].min() > 0.999 and found["red"][0, 5:, 5:].max() < 0.5
    assert found["blue"][0, 5:, 5:].min() > 0.999 and found["blue"][0, :3, :3].max() < 0.5


def test_the_stage_fits_the_size_of_the_pictures():
    def made(build, *arguments, **options):
        trunk = abstract(build, *arguments, **options)
        trunk.eval()
        return trunk

    resnet = made(ResNet, (1, 1, 1, 1))
    assert [explained_stage(resnet, size) for size in (8, 32, 64, 224)] == ["layer1", "layer2", "layer3", "layer4"]
    efficientnet = made(efficientnet_b0)
    assert [explained_stage(efficientnet, size) for size in (64, 224)] == ["stage5", "head"]
    vit = made(VisionTransformer, 16, 3, 16, 2, 32, image_size=64)
    assert explained_stage(vit, 64) == "block1"


def test_a_vision_transformers_patches_have_a_say():
    rngs = nnx.Rngs(0)
    model = MultiTaskModel(VisionTransformer(8, 2, 16, 2, 32, image_size=32, rngs=rngs), TASKS, rngs=rngs)
    model.eval()
    spec = ModelSpec("vit_b_16", {task.name: task.classes for task in TASKS}, 32, "upright", "random")
    pictures = np.random.RandomState(1).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    maps = Explainer(model, spec).maps(pictures, ("glasses", "shirt"))
    assert maps["shirt"].shape == (4, 4, 4)
    assert max(values.max() for values in maps.values()) > 0.999  # after the last block they would be zeros


def test_overlays_glow_where_the_map_does():
    picture = np.full((40, 60, 3), 90, np.uint8)
    found = np.zeros((4, 6), np.float32)
    found[0, 5] = 1
    laid = overlay(picture, found).astype(int)
    assert laid.shape == picture.shape
    assert laid[2, 57].sum() > 3 * 140 and laid[30, 10].sum() < 3 * 70
    sheet = strip(picture[:40, :40], {"a": found, "b": found}, {"a": "a: yes 0.93", "b": "a very long name " * 9})
    assert sheet.shape[1] > 3 * 224 and sheet.shape[0] > 224
    assert (sheet[230:] < 128).any()


def test_predict_writes_a_picture_for_each(trained_run: Path, tmp_path: Path, capsys):
    names = []
    for number in range(3):
        names.append(str(tmp_path / f"same {number % 2}.png"))
        Image.new("RGB", (50, 40), (80 * number, 9, 9)).save(names[-1])
    (tmp_path / "bad.png").write_bytes(b"")
    assert main(["predict", str(trained_run), *names, str(tmp_path / "bad.png"), "--explain", str(tmp_path / "x")]) == 2
    capsys.readouterr()
    written = sorted((tmp_path / "x").iterdir())
    assert [path.name for path in written] == ["00001-same 0.png", "00002-same 1.png", "00003-same 0.png"]
    heads = len(open_run(trained_run).spec.classes)
    with Image.open(written[0]) as image:
        width, height = image.size
    assert width > (1 + heads) * 224 and height > 224
