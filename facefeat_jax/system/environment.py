"""What figures depend on, beside what is measured: machine, versions, variables, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from facefeat_jax.system.markdown import code
from facefeat_jax.system.runtime import cores
from facefeat_jax.system.text import count, format_size

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


def record(command: str, packages: Iterable[str] = PACKAGES, devices: str | None = None) -> dict[str, Any]:
    """Returns what a file of results says of its making: `date`, `command`, `commit` and `environment` (`describe`)."""
    return {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "command": command,
        "commit": commit(),
        "environment": describe(packages, devices),
    }


def record_lines(recorded: Mapping[str, Any]) -> list[str]:
    """Returns what `record` returned as a list in Markdown; with `seconds`, how long it took."""
    took = f", {recorded['seconds']:,.0f} s" if "seconds" in recorded else ""
    made = f"{recorded['date']}{took}, commit {recorded['commit'] or 'unknown'}, {code(recorded['command'])}"
    set_here = [code(f"{name}={value}") for name, value in recorded["environment"].get("variables", {}).items()]
    return [f"- {text}" for text in (made, line(recorded["environment"]), ", ".join(set_here)) if text]


def typed(program: str) -> str:
    """Returns the command line that was typed, which began with `program`, without folders of this machine."""
    return shlex.join([*program.split(), *map(_without_folder, sys.argv[1:])])


def _without_folder(word: str) -> str:
    option, separator, value = word.rpartition("=")
    return f"{option}{separator}{Path(value).name}" if Path(value).is_absolute() else word


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
        "variables": {
            name: " ".join(map(_without_folder, value.split()))
            for name, value in variables().items()
            if not os.path.isabs(value) and "_CACHE_" not in name
        },
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


def line(described: Mapping[str, Any]) -> str:
    """Returns what `describe` returned in one line, without devices and variables; older files may lack some of it."""
    memory, system = described.get("memory_bytes"), described.get("system")
    parts = [
        f"{count(described['cores'], 'core')} of {described['processor']}",
        format_size(memory, 0) if memory else "",
        system or "",
        f"Python {described['python']}",
        *(f"{name} {version}" for name, version in described["versions"].items()),
    ]
    return ", ".join(filter(None, parts))


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
