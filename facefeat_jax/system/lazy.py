"""Public names of a package that are loaded when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from facefeat_jax.system.extras import what_to_install


def names(package: str, modules: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` for a package.

    Args:
      package: its name.
      modules: by module, the public names that it defines.
    """

    module_of = {name: module for module, defined in modules.items() for name in defined}

    def find(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(module_of[name]), name)
        except ModuleNotFoundError as error:
            if advice := what_to_install(error):
                raise ModuleNotFoundError(advice, name=error.name) from error
            raise

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return find, listed
