"""What a plain installation is enough for, and what it says where it is not."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest

from facefeat_jax.config import TrainConfig
from facefeat_jax.runs.run_folder import write_config
from facefeat_jax.system import errors

from ..conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules whose package has another name.
PACKAGES = {
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "grain": "grain",
    "orbax": "orbax-checkpoint",
    "PIL": "pillow",
    "pillow_jxl": "pillow-jxl-plugin",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}

# Runs commands where the modules named in the first argument are not to be found.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
from facefeat_jax.cli import main
codes = []
for call in sys.argv[2:]:
    try:
        codes.append(main(call.split()))
    except SystemExit as stopped:
        codes.append(stopped.code)
    sys.stderr.flush()
print("codes:", codes)
"""


def declared(requirements: list[str]) -> set[str]:
    """Returns the names of packages, in small letters and with dashes."""
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def package(module: str) -> str:
    return re.sub(r"[-_.]+", "-", PACKAGES.get(module, module)).lower()


CORE = declared(PROJECT["dependencies"])
EXTRA = {name: declared(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}


def test_every_module_that_is_imported_is_declared():
    imported = set()
    for folder in ("facefeat_jax", "weights_conversion"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add((node.module or "").partition(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"facefeat_jax", "weights_conversion", "torch"}
    known = CORE.union(*EXTRA.values()) | {"jaxlib"}
    assert {package(module) for module in third_party} <= known
    assert {"jax", "flax", "tensorflow_datasets", "PIL"} <= third_party


def test_each_extra_brings_what_the_advice_says():
    assert {package(module) for module in errors.PREDICT} <= EXTRA["predict"]
    assert {package(module) for module in errors.TRAIN} <= EXTRA["train"] | EXTRA["predict"]
    assert {package(module) for module in errors.FACES} == EXTRA["faces"]
    assert {package(module) for module in errors.ONNX} == EXTRA["onnx"] - {"facefeat-jax"}
    assert {package(module) for module in errors.STABLEHLO} == EXTRA["stablehlo"] - {"facefeat-jax"}
    assert {package(module) for module in errors.SERVE} == EXTRA["serve"] - {"facefeat-jax"}
    every = errors.PREDICT + errors.FACES + errors.TRAIN + errors.ONNX + errors.STABLEHLO + errors.SERVE
    every += errors.VIDEO + errors.FORMATS
    assert not {package(module) for module in every} & CORE
    assert {package(module) for module in errors.VIDEO} == EXTRA["video"]
    assert {package(module) for module in errors.FORMATS} == EXTRA["formats"]
    assert {package(module) for module in errors.SHARDS} == EXTRA["shards"] - {"facefeat-jax"}
    assert {package(module) for module in errors.HUB} == EXTRA["hub"] - {"facefeat-jax"}
    assert {"ray"} == EXTRA["ray"] - {"facefeat-jax"} and "ray" in errors.RAY
    # All that an extra adds is in the advice, but for what flax or jax bring anyway.
    brought = {re.match(r"[\w.-]+", text)[0].lower() for text in importlib.metadata.requires("jax") or []}
    advised = {package(module) for module in errors.PREDICT + errors.TRAIN}
    assert EXTRA["predict"] | EXTRA["train"] <= advised | brought | {"facefeat-jax"}


def without(absent: tuple[str, ...], *calls: str) -> tuple[list[int], list[str]]:
    """Returns the exit codes of commands and the lines of standard error."""
    # What flax itself brings stays.
    absent = tuple(module for module in absent if module not in ("absl", "optax", "orbax"))
    command = [sys.executable, "-c", WITHOUT, ",".join(absent), *calls]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    return ast.literal_eval(done.stdout.rpartition("codes: ")[2]), done.stderr.splitlines()


def test_commands_without_their_extra_say_what_to_install(tmp_path):
    # A run that is there: one that is missing is found before anything slow is imported.
    write_config(tmp_path, TrainConfig())
    # Converting and exporting take what flax itself brings.
    (tmp_path / "y.png").write_bytes(b"")  # so is a picture
    predict = f"predict {tmp_path} {tmp_path / 'y.png'}"
    calls = ("prepare avatars --data-dir absent", "train avatars", f"evaluate {tmp_path}", predict)
    codes, lines = without(errors.PREDICT + errors.TRAIN, "models", "--help", *calls)
    assert codes == [0, 0, *[2] * len(calls)]
    assert len(lines) == len(calls)
    assert all(line.startswith("facefeat: this needs ") and "pip install '.[" in line for line in lines)


def test_predicting_needs_its_own_extra_alone():
    codes, lines = without(
        errors.TRAIN, "predict absent y.png", "convert absent.pth --to y", "prepare avatars --data-dir absent"
    )
    assert codes == [2, 2, 2]
    assert "no run folder" in lines[0] and "no such file" in lines[1]
    assert "pip install '.[train]'" in lines[2]


def test_exporting_for_other_runtimes_names_the_extra_of_the_format(tmp_path):
    write_config(tmp_path, TrainConfig())
    calls = [f"export {tmp_path} {tmp_path / name}" for name in ("model.onnx", "model.stablehlo")]
    calls.append("serve model.onnx --port 0")
    codes, lines = without(errors.ONNX + errors.STABLEHLO + errors.SERVE, *calls)
    assert codes == [2, 2, 2] and len(lines) == 3
    assert "pip install '.[serve]'" in lines[2]
    assert "needs onnx, " in lines[0] and "pip install '.[onnx]'" in lines[0]
    assert "needs flatbuffers, " in lines[1] and "pip install '.[stablehlo]'" in lines[1]


def test_other_missing_modules_are_faults():
    assert errors.what_to_install(ModuleNotFoundError("x", name="facefeat_jax.nothing")) is None
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        raise_through_main()


def raise_through_main():
    from facefeat_jax.system.main import run_main

    def body():
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    run_main(body)
