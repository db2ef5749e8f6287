"""Counts what pip would install for this project and for what people use in its place, and what two of them hold.

    python scripts/lab/compare_installs.py

Nothing is installed: pip resolves, on this machine's Python, what it would take from the package index, and the wheels
of timm and deepface are read.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from facefeat_jax.system.markdown import table

ROOT = Path(__file__).resolve().parents[2]
COMPARED = {
    "facefeat_jax, models and weights": (str(ROOT),),
    "facefeat_jax, to predict": (f"{ROOT}[predict]",),
    "facefeat_jax, to train": (f"{ROOT}[train]",),
    "timm": ("timm",),
    "deepface": ("deepface", "tf-keras"),
    "a PyTorch script": ("torch", "torchvision"),
}


def packages(*wanted: str) -> list[str]:
    """Returns the packages that pip would install, with their versions."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    answer = subprocess.run([*command, *wanted], capture_output=True, text=True, check=True)
    found = [one["metadata"] for one in json.loads(answer.stdout)["install"]]
    return [f"{one['name']} {one['version']}" for one in found]


def sources(package: str) -> tuple[str, dict[str, str]]:
    """Returns the version of a package's newest wheel, and its Python files by their names."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder, package]
        subprocess.run(command, check=True, capture_output=True)
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            files = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    return wheel.name.split("-")[1], files


def facts() -> list[str]:
    """Returns lines about what timm and deepface hold, read from their wheels."""
    version, files = sources("timm")
    models = sum(len(re.findall(r"^@register_model", text, re.MULTILINE)) for text in files.values())
    scripts = [name for name in files if Path(name).name in ("train.py", "validate.py")]
    lines = [f"timm {version}: {models:,} models; {len(scripts)} of its training scripts are in the wheel"]
    version, files = sources("deepface")
    (actions,) = re.findall(r"^def analyze\(.*?actions: .*? = \((.*?)\)", files["deepface/DeepFace.py"], re.M | re.S)
    attributes = ", ".join(re.findall(r"\w+", actions))
    is_trained = any(re.search(r"\.fit\(|def train", text) for text in files.values())
    return [*lines, f"deepface {version}: {attributes}; {'some' if is_trained else 'no'} code that trains"]


if __name__ == "__main__":
    rows = []
    for name, wanted in COMPARED.items():
        found = packages(*wanted)
        brought = [one for one in found if one.split()[0].lower() in ("torch", "tensorflow", "jax")]
        rows.append([name, len(found), ", ".join(brought)])
    print(f"Python {sys.version.split()[0]}, {sys.platform}\n")
    print("\n".join(table(["what", "packages", "among them"], rows, texts=1)))
    print("\n" + "\n".join(facts()))
