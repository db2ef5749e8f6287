"""What only a GPU can show. `make gpu-test` runs this and all other tests that are marked `gpu`, which run anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from facefeat_jax import create_model
from facefeat_jax.data.dataset import open_split
from facefeat_jax.data.images import decode_resized
from facefeat_jax.forward import make_predict_step
from facefeat_jax.models._values import split_values
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.tasks import TASKS

pytestmark = pytest.mark.gpu

TRAIN = [sys.executable, "-m", "facefeat_jax.cli", "train", "avatars"]
# A share of the GPU for each program that is started: this process holds most of the rest.
SHARE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_FLAGS": ""}


@pytest.fixture
def gpu() -> jax.Device:
    """The first GPU."""
    if jax.default_backend() != "gpu":
        pytest.skip("needs a GPU; make gpu-test on a machine that has one")
    return jax.devices()[0]


def started(*options: str, **variables: str) -> subprocess.Popen[str]:
    words = [*TRAIN, *options]
    environment = {**os.environ, **SHARE, **variables}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_bfloat16_gives_the_answers_of_float32(avatars_dir, small_trunk):
    """On a GPU this is what tensor cores and TF32 make of it; elsewhere what rounding does."""
    split = open_split("avatars", "val", avatars_dir)
    rows = np.stack([decode_resized(split.read(index), 32, "upright") for index in range(8)])
    tasks, found = tuple(TASKS), {}
    for dtype in ("float32", "bfloat16"):
        spec = ModelSpec(small_trunk, {n: t.classes for n, t in TASKS.items()}, 32, "upright", "random", dtype=dtype)
        model = create_model(small_trunk, tasks=tasks, rngs=nnx.Rngs(0), dtype=dtype)
        model.eval()
        step = make_predict_step(*split_values(model)[:1], spec, dtype)
        found[dtype] = jax.device_get(step(*split_values(model)[1:], jax.device_put(rows), tasks=tasks))
    for task in tasks:
        one, other = (found[dtype][task] for dtype in ("float32", "bfloat16"))
        assert one.dtype == other.dtype == np.float32
        assert 0 < np.abs(one - other).max() < 0.05


def test_memory_that_runs_out_ends_with_what_would_fit(gpu, avatars_dir, tmp_path):
    options = ["--data-dir", str(avatars_dir), "--run", str(tmp_path / "run"), "--image-size", "64"]
    options += ["--batch-size", "32768", "--epochs", "1", "--dtype", "float32", "--feed", "stream"]
    run = started(*options, XLA_PYTHON_CLIENT_MEM_FRACTION="0.03", XLA_PYTHON_CLIENT_PREALLOCATE="true")
    said, _ = run.communicate(timeout=400)
    assert run.returncode == 2, said
    assert "out of memory on" in said and "--batch-size" in said and "Traceback" not in said


def test_two_trainings_on_one_gpu_share_it_or_one_says_why_not(gpu, avatars_dir, tmp_path):
    runs = [
        started("--smoke", "--data-dir", str(avatars_dir), "--run", str(tmp_path / name)) for name in ("one", "two")
    ]
    for run in runs:
        said, _ = run.communicate(timeout=400)
        assert run.returncode in (0, 2) and "Traceback" not in said, said
        assert run.returncode == 0 or "another process" in said


def test_a_training_in_another_process_ends_with_the_same_bits(gpu, avatars_dir, tmp_path):
    """With `--deterministic`: programs are compiled anew, and choose the same algorithms."""
    weights = []
    for name in ("one", "two"):
        options = ["--smoke", "--data-dir", str(avatars_dir), "--run", str(tmp_path / name), "--deterministic"]
        run = started(*options, FACEFEAT_CACHE=str(tmp_path / f"cache-{name}"), JAX_COMPILATION_CACHE_DIR="")
        said, _ = run.communicate(timeout=400)
        assert run.returncode == 0, said
        weights.append(Path(tmp_path / name / "metrics.jsonl").read_text().splitlines())
    first, second = ([line for line in lines if '"pass"' not in line] for lines in weights)
    assert first == second
