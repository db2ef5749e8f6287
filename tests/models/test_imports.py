"""What importing the package and its models loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("tensorflow", "torch", "torchvision", "tensorflow_datasets", "grain", "PIL", "matplotlib", "orbax", "tyro")


def _loaded_by(statement: str) -> set[str]:
    """Returns the top-level modules that a fresh interpreter holds after the statement."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import facefeat_jax.models", "import facefeat_jax.models.resnet"])
def test_models_load_jax_and_flax_only(statement: str) -> None:
    loaded = _loaded_by(statement)
    assert {"jax", "flax"} <= loaded
    assert not loaded & set(HEAVY)


def test_the_package_alone_loads_nothing() -> None:
    assert not _loaded_by("import facefeat_jax") & {"jax", "flax", "numpy", *HEAVY}


def test_converting_weights_needs_no_torch_and_no_data_libraries() -> None:
    unwanted = {"tensorflow", "torch", "tensorflow_datasets", "grain", "PIL", "matplotlib"}
    assert not _loaded_by("import weights_conversion") & unwanted


def test_create_model_with_random_weights_loads_no_converter() -> None:
    # eval_shape: drawing the weights would compile a program for every shape.
    make = "nnx.eval_shape(lambda: create_model(tasks=('gender',)))"
    loaded = _loaded_by(f"from flax import nnx; from facefeat_jax import create_model; {make}")
    assert not loaded & {"weights_conversion", "torch", "tensorflow_datasets", "grain", "PIL"}


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
