"""`facefeat doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from facefeat_jax.system.progress import show, show_json


@dataclass(frozen=True)
class Arguments:
    """Prints versions, devices, memory, disk and caches, for a bug report."""

    json: bool = False
    """Print JSON."""


def run(arguments: Arguments) -> int:
    """Prints what a bug report needs; returns the exit code."""
    from facefeat_jax.data._row_store import store_folder
    from facefeat_jax.data.dataset import default_data_dir
    from facefeat_jax.system.doctor import examine

    found = examine({"data sets": default_data_dir(), "decoded pictures": store_folder()})
    if arguments.json:
        show_json(found)
        return 0
    for section, entries in found.items():
        show(section, *(f"  {name}: {value}" for name, value in entries.items()))
    return 0
