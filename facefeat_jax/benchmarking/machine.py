"""What the figures of a benchmark depend on, beside what is measured: machine, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

import facefeat_jax
from facefeat_jax.runtime import cores

_VARIABLES = ("FACEFEAT_", "JAX_", "XLA_", "OMP_", "KMP_", "MKL_", "GOMP_", "TORCH", "CUDA_VISIBLE", "NVIDIA_TF32")


def describe(packages: tuple[str, ...], devices: str) -> dict[str, Any]:
    """Returns the machine and the versions of `packages`, as JSON values.

    Args:
      packages: whose versions.
      devices: what JAX found to compute on.
    """
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "devices": devices,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name))},
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
    }


def busy_cores(seconds: float = 0.3) -> float:
    """Returns how many cores' worth of work the machine does meanwhile; called when we do none."""
    return round(psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1), 2)


def processor() -> str:
    """Returns the processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Returns the commit of the checkout that this code lies in, with `+` where files differ from it; else empty."""
    folder = Path(facefeat_jax.__file__).resolve().parents[1]
    if not (folder / ".git").exists():  # installed, perhaps inside the checkout of something else
        return ""
    try:
        name, changed = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
