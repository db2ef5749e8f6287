"""Builds the wheel and tries it as a user would: in an empty environment, away from the checkout."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path) -> None:
    print("+", *(str(part).replace(str(cwd), ".") for part in command), flush=True)
    # Nothing but the wheel is to be found: a PYTHONPATH may lead to the checkout.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, env=environment)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", away, ROOT, cwd=away)
        (wheel,) = away.glob("*.whl")
        venv.create(away / "env", with_pip=True)
        binaries = away / "env" / "bin"
        run(binaries / "python", *pip[1:], "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=away)
        run(binaries / "facefeat", "doctor", cwd=away)
        run(binaries / "facefeat", "models", cwd=away)
        run(binaries / "facefeat", "prepare", "avatars", "--data-dir", "data", cwd=away)
        for recipe in ("avatars", "baseline"):
            run(binaries / "facefeat", "train", recipe, "--smoke", "--data-dir", "data", "--run", recipe, cwd=away)
        run(binaries / "facefeat", "evaluate", "avatars", "--json", cwd=away)
        run(binaries / "facefeat", "export", "avatars", "--to", "torch", "model.safetensors", cwd=away)
        run(binaries / "facefeat", "convert", "model.safetensors", "--to", "converted", cwd=away)
        run(binaries / "python", "-c", "import weights_conversion, facefeat_jax; facefeat_jax.create_model()", cwd=away)
    print("the wheel works")


if __name__ == "__main__":
    main()
