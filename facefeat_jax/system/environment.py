"""What figures depend on, beside what is measured: machine, versions, variables, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from facefeat_jax.system.runtime import cores

PACKAGES = (
    "facefeat-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "pillow",
    "scikit-learn",
    "safetensors",
    "torch",
    "torchvision",
)
"""Those that figures of this project may depend on."""

_VARIABLES = ("FACEFEAT_", "JAX_", "XLA_", "OMP_", "KMP_", "MKL_", "GOMP_", "TORCH", "CUDA_VISIBLE", "NVIDIA_TF32")


def describe(packages: Iterable[str] = PACKAGES, devices: str | None = None) -> dict[str, Any]:
    """Returns the machine and the versions of `packages`, as JSON values.

    Args:
      packages: whose versions; those that are not installed are left out.
      devices: what there is to compute on; None asks JAX.
    """
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "devices": device_names() if devices is None else devices,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(packages),
        # Results are published: no paths of this machine, nor how it keeps compiled programs.
        "variables": {k: v for k, v in variables().items() if not os.path.isabs(v) and "_CACHE_" not in k},
    }


def of_run() -> dict[str, str]:
    """Returns what a run's results depend on beside its config, as it stands in results.json."""
    import jax

    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
        **versions(("jax", "jaxlib", "flax", "optax", "numpy", "pillow")),
        "backend": jax.default_backend(),
        "devices": device_names(),
    }


def line(described: dict[str, Any]) -> str:
    """Returns what `describe` returned in one line, without devices and variables."""
    cores = "1 core" if described["cores"] == 1 else f"{described['cores']} cores"
    parts = [
        f"{cores} of {described['processor']}",
        f"{described['memory_bytes'] / 2**30:.0f} GiB",
        described["system"],
        f"Python {described['python']}",
        *(f"{name} {version}" for name, version in described["versions"].items()),
    ]
    return ", ".join(parts)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Returns the versions of those of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def variables(*more: str) -> dict[str, str]:
    """Returns the environment variables that change what is computed, or how fast, and those that begin with `more`."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith((*_VARIABLES, *more))}


def device_names() -> str:
    """Returns the kinds of JAX's devices and how many there are: `NVIDIA H100 x1`."""
    import jax

    return ", ".join(sorted({device.device_kind for device in jax.devices()})) + f" x{jax.device_count()}"


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
    folder = Path(__file__).resolve().parents[2]
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
