"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from filelock import FileLock
from PIL import Image

from . import session

ROOT = Path(__file__).resolve().parents[1]

# Now, not in pytest_configure: the conftest of a folder that is named on the command line is loaded before that.
# Workers inherit what the first process set.
session.check_types()
session.heed_interrupts()
_made = None if "PYTEST_XDIST_WORKER" in os.environ else session.set_up()


def pytest_unconfigure(config: pytest.Config) -> None:
    session.tear_down(_made)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests marked slow")


def pytest_collection_finish() -> None:
    session.settle()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEFEAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has figures saved empty: drawing those of a report took half of a small training. tests/reporting draws them."""

    def savefig(self: object, file: Any, *, format: str, **_: object) -> None:
        if format == "svg":
            file.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            Image.new("RGB", (1, 1)).save(file, format)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what follows a training: calibration, report and model card."""
    from facefeat_jax.reporting import _publish

    monkeypatch.setattr(_publish, "publish_training", lambda *arguments, **options: None)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real pictures, which are not part of the project; tests that want it skip where it is absent."""
    folder = Path(os.environ.get("FACEFEAT_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip("no real pictures here; set FACEFEAT_REALDATA to their folder")
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switches the checking of signatures off: the test is about what callers without it are told."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def added_builders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets, after the test, the data sets that it makes known by `add_builder`."""
    from facefeat_jax.data import builders

    monkeypatch.setattr(builders, "_added", dict(builders._added))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Returns a function that has a folder filled by the first process that asks for it, for all of them.

    What it returns is only to be read.
    """
    base = tmp_path_factory.getbasetemp()
    # With workers each has a folder of its own inside the session's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def filled(name: str, fill: Callable[[Path], object]) -> Path:
        folder, complete = shared / f"once-{name}", shared / f"once-{name}.complete"
        with FileLock(shared / f"once-{name}.lock"):
            if not complete.exists():
                folder.mkdir()
                fill(folder)
                complete.touch()
        return folder

    return filled


@pytest.fixture(scope="session")
def avatars_dir(once) -> Path:
    """A data folder with a small `avatars` data set: 44 pictures to train on, 20 to validate."""
    from facefeat_jax.data import _drawn as drawn
    from facefeat_jax.data.prepare import prepare

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(drawn, "TRAIN_SIZE", 44)
            patch.setattr(drawn, "VAL_SIZE", 20)
            prepare("avatars", None, folder, workers=1, progress=False)

    return once("data", fill)


@pytest.fixture(scope="session")
def small_trunk() -> str:
    """The name of a ResNet with one narrow block a stage, known to this process; it compiles and trains in seconds."""
    from facefeat_jax.models.registry import ARCHITECTURES, Architecture
    from facefeat_jax.models.resnet import ResNet

    def build(**options) -> ResNet:
        return ResNet((1, 1, 1, 1), width=8, **options)

    ARCHITECTURES["small"] = Architecture("small", build, 64, ResNet.STAGES, ResNet.LAST, "tests")
    return "small"


@pytest.fixture(scope="session")
def tiny_trunks(small_trunk: str) -> dict[str, str]:
    """Names of trunks that compile in seconds, known to this process, one for each family."""
    from facefeat_jax.models.abstract import abstract
    from facefeat_jax.models.efficientnet import EfficientNet, Scale, Stage
    from facefeat_jax.models.registry import ARCHITECTURES, Architecture
    from facefeat_jax.models.vit import VisionTransformer

    table = (Stage(1, 1, 1, 16, 1), Stage(2, 3, 2, 32, 1), *(Stage(1, 1, 1, 32, 1),) * 5)

    def efficientnet(**options) -> EfficientNet:
        return EfficientNet(Scale(0.25, 1.0, dropout=0.2), table=table, **options)

    def vit(**options) -> VisionTransformer:
        return VisionTransformer(8, 2, 24, 3, 48, **{"image_size": 32, **options})

    width = abstract(efficientnet).num_features
    stages, last = VisionTransformer.stages_of(2), VisionTransformer.last_of(2)
    for architecture in (
        Architecture("small_efficientnet", efficientnet, width, EfficientNet.STAGES, EfficientNet.LAST, "tests"),
        Architecture("small_vit", vit, 24, stages, last, "tests", fixed_size=True),
    ):
        ARCHITECTURES[architecture.name] = architecture
    return {"resnet": small_trunk, "efficientnet": "small_efficientnet", "vit": "small_vit"}


@pytest.fixture(scope="session")
def tiny(avatars_dir: Path, small_trunk: str):
    """Returns a function from fields to a `TrainConfig` that trains in seconds."""
    from facefeat_jax.config import TrainConfig

    def config(run: Path, **fields) -> TrainConfig:
        defaults = dict(
            run=run,
            data_dir=avatars_dir,
            sources=("avatars",),
            trunk=small_trunk,
            weights="random",
            image_size=32,
            batch_size=8,
            epochs=2,
            learning_rate=1e-3,
            log_every=4,
        )
        return TrainConfig().replace(**{**defaults, **fields})

    return config


@pytest.fixture(scope="session")
def trained_run(tiny, once) -> Path:
    """A run folder of a model trained for a few steps; tests only read it."""
    from facefeat_jax.commands import train

    return once("runs", lambda folder: train(tiny(folder / "trained"))) / "trained"


@pytest.fixture(scope="session")
def resnet18_run(tiny, once) -> Path:
    """A run folder of the network that the notebook trains, with made-up weights; tests only read it."""
    from facefeat_jax.runs.run_folder import create_from_weights
    from facefeat_jax.runs.spec import ModelSpec
    from facefeat_jax.tasks import TASKS

    from .made import filled

    def fill(folder: Path) -> None:
        spec = ModelSpec("resnet18", {name: task.classes for name, task in TASKS.items()}, 32, "upright", "random")
        config = tiny(folder / "made", trunk="resnet18")
        create_from_weights(folder / "made", spec, filled(spec.abstract()), config)

    return once("resnet18", fill) / "made"


@pytest.fixture
def made_answers() -> Callable[..., Any]:
    """Returns a function that makes answers of `n` pictures: labels of gender on all, of shirt on none.

    The gender head is right on all pictures but the share `wrong` of those of group race = Blue.
    """
    import numpy as np

    from facefeat_jax.evaluation.answers import Answers

    def make(n: int = 400, *, wrong: float = 0.4, seed: int = 0, **changes) -> Answers:
        random = np.random.RandomState(seed)
        gender = random.randint(0, 2, n)
        race = np.array(["Blue", "Green"])[random.randint(0, 2, n)]
        missed = (race == "Blue") & (random.rand(n) < wrong)
        logits = {
            "gender": (np.where(gender ^ missed, 1.0, -1.0) * random.uniform(0.5, 3, n))[:, None],
            "glasses": random.normal(size=(n, 1)),
            "shirt": random.normal(size=(n, 3)),
        }
        unknown = np.full(n, -1)
        fields = {
            "classes": {
                "gender": ("female", "male"),
                "glasses": ("no_glasses", "glasses"),
                "shirt": ("black", "blue", "red"),
            },
            "logits": logits,
            "labels": {"gender": gender, "glasses": unknown, "shirt": unknown},
            "groups": {"race": race},
            "names": np.array([f"made/val: {number}.png" for number in range(n)]),
            "units": np.array([f"made: {number}.png" for number in range(n)]),
        }
        return Answers(**{**fields, **changes})

    return make
