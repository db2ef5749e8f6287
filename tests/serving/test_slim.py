"""The packages of deploy/Dockerfile in an environment of their own, without JAX: `facefeat serve` works there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv

import pytest

from ..conftest import ROOT
from ..prediction.test_exported import exported  # noqa: F401 - a fixture
from .test_serve import ask, contents, post, predicted, same


@pytest.mark.slow
def test_an_environment_of_the_images_packages_serves(exported, tmp_path, capsys) -> None:  # noqa: F811
    away = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XLA_"))}

    def run(*words: object, code: int = 0) -> str:
        done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=away, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--no-compile")
    run(*install, "-r", ROOT / "deploy" / "requirements.txt", "-c", ROOT / "constraints.txt")
    run(*install, "--no-deps", wheel)
    for module in ("jax", "flax", "torch"):
        assert "ModuleNotFoundError" in run(python, "-c", f"import {module}", code=1)
    words = [python.parent / "facefeat", "serve", exported / "model.onnx", "--port", "0"]
    process = subprocess.Popen(list(map(str, words)), cwd=tmp_path, env=away, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://127.0.0.1:\d+", process.stderr.readline())[0]
        names = ["0.png", "bad.png", "1.png"]
        files = [exported / name for name in names]
        answer = post(address, *contents(exported, *names))[2]["results"]
        same(answer, predicted(capsys, exported / "model.onnx", *files))
        assert ask(address, "/healthz")[0] == 200 and b"page.js" in ask(address, "/")[2]
        assert post(address, *contents(exported, "0.png"), faces="1")[0] == 200
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
