"""Counts the packages that pip would install for this project and for what people use in its place.

    python scripts/lab/compare_installs.py

Nothing is installed: pip resolves, on this machine's Python, what it would take from the package index.
"""

from __future__ import annotations

import json
import subprocess
import sys
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


if __name__ == "__main__":
    rows = []
    for name, wanted in COMPARED.items():
        found = packages(*wanted)
        brought = [one for one in found if one.split()[0].lower() in ("torch", "tensorflow", "jax")]
        rows.append([name, len(found), ", ".join(brought)])
    print(f"Python {sys.version.split()[0]}, {sys.platform}\n")
    print("\n".join(table(["what", "packages", "among them"], rows, texts=1)))
