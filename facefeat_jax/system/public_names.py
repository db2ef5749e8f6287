"""A package's public names, loaded when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from typing import Any

from facefeat_jax.system.errors import what_to_install


def attach(package: str, *others: str) -> None:
    """Gives a package `__all__` and `dir()` of its public names, and loads each name when it is first used.

    The table of names is the `__init__` itself: what it imports under its own name (`from module import name as name`),
    which is how type checkers are told that a name is public. Below `if TYPE_CHECKING:` such a line loads nothing.

    Args:
      package: its name.
      others: public names that the `__init__` defines.
    """
    source = ast.parse(pkgutil.get_data(package, "__init__.py") or b"")
    module_of = {
        alias.name: node.module or ""
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }

    def find(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(module_of[name]), name)
        except ModuleNotFoundError as error:
            if advice := what_to_install(error):
                raise ModuleNotFoundError(advice, name=error.name) from error
            raise

    # By `vars`, as type checkers take a package with an `__all__` that they can't read for one without public names.
    vars(sys.modules[package]).update(
        __all__=sorted({*module_of, *others}),
        __getattr__=find,
        __dir__=lambda: sorted({*vars(sys.modules[package]), *module_of}),
    )
