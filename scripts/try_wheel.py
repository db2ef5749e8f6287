"""Builds the wheel and tries it as users would: in an empty environment, away from the checkout, plain and in full."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What a researcher does with a plain installation: nothing of it may need an extra.
PLAIN = """
import facefeat_jax, weights_conversion
from flax import nnx
model = facefeat_jax.create_model("resnet18", tasks=["shirt"], rngs=nnx.Rngs(0))
weights_conversion.write("plain.pth", weights_conversion.to_torch(model.trunk))
again = facefeat_jax.create_model("resnet18", tasks=["shirt"], weights="plain.pth")
print(facefeat_jax.list_models(), model.trunk.num_features)
"""

# As `facefeat prepare avatars`, but few pictures.
PREPARE = """
import sys
from facefeat_jax.cli import main
from facefeat_jax.data import _drawn as drawn
drawn.TRAIN_SIZE, drawn.VAL_SIZE = 64, 32
sys.exit(main(["prepare", "avatars", "--data-dir", "data"]))
"""


def run(*command: object, cwd: Path, code: int = 0) -> str:
    """Runs a command that must end with the exit code; returns what it said."""
    print("+", *(str(part).replace(str(cwd), ".") for part in command), flush=True)
    # Nothing but the wheel is to be found: a PYTHONPATH may lead to the checkout. Programs are compiled fast.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"XLA_FLAGS": "--xla_backend_optimization_level=0", "FACEFEAT_CACHE": str(cwd / "cache")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    print(done.stdout + done.stderr, flush=True)
    if done.returncode != code:
        raise SystemExit(f"exit code {done.returncode} where {code} was expected")
    return done.stdout + done.stderr


def size_of(environment: Path) -> str:
    """Returns how much was installed, without pip itself."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    kept = [
        path for path in packages.iterdir() if not path.name.startswith(("pip", "setuptools", "_distutils", "pkg_"))
    ]
    files = [file for path in kept for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files if file.suffix != ".pyc") / 1e6
    return f"{sum(path.suffix == '.dist-info' for path in kept)} packages, {megabytes:,.0f} MB"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", away, ROOT, cwd=away)
        (wheel,) = away.glob("*.whl")
        venv.create(away / "env", with_pip=True)
        binaries = away / "env" / "bin"

        def install(what: object) -> str:
            options = ("install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt")
            run(binaries / "python", *pip[1:], *options, what, cwd=away)
            return size_of(away / "env")

        sizes = {"plain": install(wheel)}
        run(binaries / "facefeat", "doctor", cwd=away)
        run(binaries / "facefeat", "models", cwd=away)
        run(binaries / "python", "-c", PLAIN, cwd=away)
        answer = run(binaries / "facefeat", "train", "avatars", cwd=away, code=2)
        assert "pip install '.[train]'" in answer and len(answer.splitlines()) == 1, answer

        sizes["predict"] = install(f"{wheel}[predict]")
        answer = run(binaries / "facefeat", "predict", "absent", "x.png", cwd=away, code=2)
        assert "no run folder" in answer, answer

        sizes["train"] = install(f"{wheel}[train]")
        run(binaries / "python", "-c", PREPARE, cwd=away)
        for recipe in ("avatars", "baseline"):
            options = ("--smoke", "--epochs", 1, "--trainable", "none", "--data-dir", "data", "--run", recipe)
            run(binaries / "facefeat", "train", recipe, *options, cwd=away)
        run(binaries / "facefeat", "evaluate", "avatars", "--json", cwd=away)
        run(binaries / "facefeat", "export", "avatars", "--to", "torch", "model.safetensors", cwd=away)
        run(binaries / "facefeat", "convert", "model.safetensors", "--to", "converted", cwd=away)
    for what, size in sizes.items():
        print(f"{what}: {size}")
    print("the wheel works")


if __name__ == "__main__":
    main()
