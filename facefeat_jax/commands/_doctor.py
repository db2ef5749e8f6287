"""`facefeat doctor`: what a bug report needs: machine, versions, devices, memory, disk and caches."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from facefeat_jax.system import environment
from facefeat_jax.system.errors import install
from facefeat_jax.system.progress import show, show_json
from facefeat_jax.system.runtime import cache_dir, compilation_cache_dir
from facefeat_jax.system.text import format_size


@dataclass(frozen=True)
class Arguments:
    """Prints versions, devices, memory, disk and caches, for a bug report."""

    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Prints what a bug report needs; returns the exit code."""
    found = _examine()
    if arguments.json:
        show_json(found)
        return 0
    for section, entries in found.items():
        show(section, *(f"  {name}: {value}" for name, value in entries.items()))
    return 0


def _examine() -> dict[str, dict[str, Any]]:
    """Looks at the machine; tries a small product on the default device. Returns by section, by name, JSON values."""
    installed = environment.versions()
    return {
        "system": {
            "platform": platform.platform(),
            "python": f"{platform.python_version()} ({sys.executable})",
            "cpus": os.cpu_count(),
        },
        "packages": {name: installed.get(name, "not installed") for name in environment.PACKAGES},
        "devices": _devices(),
        "memory": _memory(),
        "disk": _disk(),
        "settings": environment.variables("TFDS_", "LD_LIBRARY_PATH"),
    }


def _devices() -> dict[str, Any]:
    plugins = [
        f"{dist.metadata['Name']} {dist.version}"
        for dist in importlib.metadata.distributions()
        if (dist.metadata["Name"] or "").lower().startswith(("jax-cuda", "jax_cuda"))
    ]
    about: dict[str, Any] = {"cuda plug-in": ", ".join(sorted(plugins)) or f"not installed ({install('cuda')})"}
    try:
        import jax
        import jax.numpy as jnp

        about["backend"] = jax.default_backend()
        for device in jax.devices():
            stats = device.memory_stats() or {}
            size = f", {format_size(stats['bytes_limit'])} for JAX" if "bytes_limit" in stats else ""
            about[f"device {device.id}"] = f"{device.device_kind}{size}"
        started = time.perf_counter()
        product = jnp.ones((256, 256)) @ jnp.ones((256, 256))
        right = bool((product == 256).all())
        about["a product"] = f"{'right' if right else 'WRONG'}, {time.perf_counter() - started:.2f} s with compilation"
    except Exception as error:  # whatever is wrong with the installation is what is asked for
        about["jax"] = f"does not work: {type(error).__name__}: {error}"
    return about


def _memory() -> dict[str, str]:
    memory = psutil.virtual_memory()
    return {"host": f"{format_size(memory.available)} free of {format_size(memory.total)}"}


def _disk() -> dict[str, str]:
    from facefeat_jax.data._row_store import store_folder
    from facefeat_jax.data.dataset import default_data_dir

    places = {
        "working folder": Path.cwd(),
        "cache": cache_dir(),
        "compiled programs": compilation_cache_dir(),
        "data sets": default_data_dir(),
        "decoded pictures": store_folder(),
    }
    about = {}
    for name, place in places.items():
        present = place if place.exists() else next(parent for parent in place.absolute().parents if parent.exists())
        free = format_size(shutil.disk_usage(present).free)
        used = (
            "not there yet"
            if not place.exists()
            else f"{format_size(_used(place))} used"
            if name != "working folder"
            else ""
        )
        about[name] = ", ".join(part for part in (str(place), used, f"{free} free") if part)
    return about


def _used(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
