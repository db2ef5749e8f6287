"""What importing the package and its models loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("tensorflow", "torch", "torchvision", "tensorflow_datasets", "grain", "PIL", "matplotlib", "orbax", "tyro")


# In one process, the lightest first, so that each is seen by what it adds.
STEPS = {
    "package": "import facefeat_jax",
    "resnet": "import facefeat_jax.models.resnet",
    "models": "import facefeat_jax.models",
    # eval_shape: drawing the weights would compile a program for every shape.
    "random": "from flax import nnx; nnx.eval_shape(lambda: facefeat_jax.create_model(tasks=('gender',)))",
    "weights": "import weights_conversion",
    "training": "import facefeat_jax.training.loop, facefeat_jax.commands._train",
}


def _loaded() -> dict[str, set[str]]:
    """The top-level modules that a fresh interpreter holds after each step."""
    program = f"import json, sys; sys.path.insert(0, {str(ROOT)!r})\n"
    program += "".join(f"{step}; print(json.dumps([*sys.modules]))\n" for step in STEPS.values())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    found = map(json.loads, done.stdout.splitlines())
    return {step: {name.partition(".")[0] for name in names} for step, names in zip(STEPS, found, strict=True)}


def test_what_imports_load() -> None:
    """Models load jax and flax only; with random weights no converter; converting needs no torch and no data."""
    loaded = _loaded()
    assert not loaded["package"] & {"jax", "flax", "numpy", *HEAVY}
    assert {"jax", "flax"} <= loaded["resnet"] and not loaded["models"] & set(HEAVY)
    assert not loaded["random"] & {"weights_conversion", "torch", "tensorflow_datasets", "grain", "PIL"}
    unwanted = {"tensorflow", "torch", "tensorflow_datasets", "grain", "PIL", "matplotlib"}
    assert "weights_conversion" in loaded["weights"] and not loaded["weights"] & unwanted
    # What only the pages need is loaded after the training: it would hold up the first step by seconds.
    assert "orbax" in loaded["training"] and not loaded["training"] & {"sklearn", "matplotlib", "jinja2"}


def test_predicting_loads_neither_training_nor_optimizer() -> None:
    """Flax loads optax itself; nothing of ours asks for it again."""
    program = "import flax.nnx, sys; sys.modules['optax'] = None; from facefeat_jax import Predictor"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print(*sys.modules)"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "facefeat_jax.runs.checkpoints" in loaded
    assert not {name for name in loaded if name.startswith(("facefeat_jax.training", "facefeat_jax.reporting"))}
    assert not loaded & {"tensorflow_datasets", "grain", "matplotlib", "jinja2"}


def test_a_name_that_is_not_there() -> None:
    import facefeat_jax

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        facefeat_jax.nothing  # noqa: B018
