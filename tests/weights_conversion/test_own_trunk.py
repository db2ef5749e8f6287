"""A trunk that is not in the project: its files have the names of its own modules, and other files stay readable."""

from __future__ import annotations

import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import weights_conversion
from facefeat_jax import create_model
from facefeat_jax.cli import main
from facefeat_jax.commands import train
from facefeat_jax.models import Architecture, BatchNorm, abstract, registry
from facefeat_jax.models.resnet import ResNet
from facefeat_jax.models.trunk import Stages, Trunk
from facefeat_jax.system.errors import UserError
from weights_conversion.convert import recognise

pytestmark = pytest.mark.long


class Plain(Trunk):
    """A convolution and, in a list, a linear layer over the mean."""

    STAGES: ClassVar[Stages] = {"stem": ("stem", "norm"), "body": ("body",)}
    LAST: ClassVar[tuple[str, ...]] = ("body",)

    def __init__(
        self, *, num_classes=None, in_channels=3, dtype=None, param_dtype=jnp.float32, remat=False, rngs: nnx.Rngs
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.in_channels, self.num_features = in_channels, 12
        self.dtype, self.remat = dtype or param_dtype, remat
        self.stem = nnx.Conv(in_channels, 8, (3, 3), strides=4, padding=1, **dtypes, rngs=rngs)
        self.norm = BatchNorm(8, **dtypes)
        self.body = nnx.List([nnx.Linear(8, 12, **dtypes, rngs=rngs), nnx.LayerNorm(12, **dtypes, rngs=rngs)])
        self.fc = None if num_classes is None else nnx.Linear(12, num_classes, **dtypes, rngs=rngs)

    def stage(self, name: str, inputs: jax.Array, *, mask=None, rngs=None) -> jax.Array:
        if name == "stem":
            return nnx.relu(self.norm(self.stem(inputs), mask=mask))
        return self.body[1](self.body[0](inputs))

    def pooled(self, inputs: jax.Array) -> jax.Array:
        return jnp.mean(inputs, axis=(1, 2))


class Odd(Plain):
    """The same with a layer that PyTorch has no form of."""

    def __init__(self, **options):
        super().__init__(**options)
        self.body.append(nnx.Einsum("bhwc,cd->bhwd", (12, 12), rngs=options["rngs"]))


class Renamed(ResNet):
    """A ResNet in all but its class."""


@pytest.fixture(autouse=True)
def own_trunks(monkeypatch):
    monkeypatch.setattr(registry, "ARCHITECTURES", registry.ARCHITECTURES)
    for name, kind in (("odd", Odd), ("plain", Plain)):
        monkeypatch.setitem(
            registry.ARCHITECTURES, name, Architecture(name, kind, 12, Plain.STAGES, Plain.LAST, "tests")
        )


def test_its_tensors_have_the_names_of_its_modules_and_the_axes_of_torch():
    shapes = {name: value.shape for name, value in weights_conversion.to_torch(Plain(rngs=nnx.Rngs(0))).items()}
    assert shapes == {
        "stem.weight": (8, 3, 3, 3),
        "stem.bias": (8,),
        "norm.weight": (8,),
        "norm.bias": (8,),
        "norm.running_mean": (8,),
        "norm.running_var": (8,),
        "norm.num_batches_tracked": (),
        "body.0.weight": (12, 8),
        "body.0.bias": (12,),
        "body.1.weight": (12,),
        "body.1.bias": (12,),
    }


def test_a_run_with_it_is_trained_exported_converted_and_answers_the_same(tiny, tmp_path, capsys):
    train(tiny(tmp_path / "run", trunk="plain", epochs=1))
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    Image.effect_noise((40, 30), 60).save(tmp_path / "picture.png")
    answers = []
    for source, file, target in (("run", "model.safetensors", "again"), ("again", "model.pth", "more")):
        assert main(["export", str(tmp_path / source), "--to", "torch", str(tmp_path / file)]) == 0
        assert main(["convert", str(tmp_path / file), "--to", str(tmp_path / target)]) == 0
        capsys.readouterr()
        for run in (source, target):
            assert main(["predict", str(tmp_path / run), str(tmp_path / "picture.png"), "--json"]) == 0
            answers.append(json.loads(capsys.readouterr().out))
    assert all(answer == answers[0] for answer in answers)
    model = create_model("plain", weights=tmp_path / "model.pth")
    stem = weights_conversion.read(tmp_path / "model.pth")["backbone.stem.weight"]
    np.testing.assert_array_equal(weights_conversion.to_torch(model)["backbone.stem.weight"], stem)


def test_what_has_no_form_in_torch_is_one_line_and_hides_no_other_trunk():
    with pytest.raises(UserError, match=r"layer body\.2 is a Einsum") as caught:
        weights_conversion.to_torch(create_model("odd", tasks=["gender"]))
    assert "\n" not in str(caught.value)
    assert recognise(weights_conversion.to_torch(Plain(num_classes=5, rngs=nnx.Rngs(0)))) == "plain"
    assert recognise({"stem.weight": np.zeros((8, 3, 3, 3))}) is None
    shapes = weights_conversion.convert.torch_shapes(abstract(registry.ARCHITECTURES["resnet18"].build))
    assert recognise({name: np.zeros(shape) for name, shape in shapes.items()}) == "resnet18"


def test_a_subclass_has_the_table_of_its_family():
    trunk = Renamed((1, 1, 1, 1), width=8, rngs=nnx.Rngs(0))
    assert "layer2.0.downsample.0.weight" in weights_conversion.to_torch(trunk)
